// openapi-generator, typescript-fetch.
import assert from 'node:assert/strict'
import { AuthApi, Configuration, EventsApi } from './client'

async function main(): Promise<void> {
  const { SERVER: basePath, EMAIL: email = '', PASSWORD: password = '' } = process.env
  const tokens = await new AuthApi(new Configuration({ basePath })).logIn({ logInRequest: { email, password } })
  const events = new EventsApi(new Configuration({ basePath, accessToken: tokens.accessToken }))

  const found = await events.listEvents({ filterName: 'Open Tech Summit', include: ['faqs', 'owner'], sort: ['name'] })
  assert.equal(found.data[0].attributes?.name, 'Open Tech Summit')
  const questions = (found.included ?? []).flatMap((each) => (each.type === 'faq' ? [each.attributes?.question] : []))
  assert.deepEqual(questions.sort(), ['Where can I park?', 'Where is it?', 'Who may come?'])

  const attributes = { name: 'Generated', timezone: 'Europe/Berlin', startsAt: new Date('2030-05-01T09:00:00Z') }
  const created = await events.createEvent({ eventCreate: { data: { type: 'event', attributes } } })
  const { id } = created.data
  const changed = await events.updateEvent({
    id,
    eventUpdate: { data: { type: 'event', id, attributes: { name: 'Generated and changed' } } },
  })
  assert.equal(changed?.data.attributes?.name, 'Generated and changed')
}

void main()
