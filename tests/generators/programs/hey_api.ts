// @hey-api/openapi-ts, with its fetch client.
import assert from 'node:assert/strict'
import { createEvent, listEvents, logIn } from './client'
import { client } from './client/client.gen'

async function main(): Promise<void> {
  const { SERVER: baseUrl, EMAIL: email = '', PASSWORD: password = '' } = process.env
  client.setConfig({ baseUrl })
  const tokens = await logIn({ body: { email, password } })
  client.setConfig({ headers: { Authorization: `JWT ${tokens.data?.access_token}` } })

  const found = await listEvents({ query: { 'filter[name]': 'Open Tech Summit', include: ['faqs', 'owner'] } })
  assert.equal(found.data?.data[0].attributes?.name, 'Open Tech Summit')
  const included = found.data?.included ?? []
  const questions = included.flatMap((each) => (each.type === 'faq' ? [each.attributes?.question] : []))
  assert.deepEqual(questions.sort(), ['Where can I park?', 'Where is it?', 'Who may come?'])

  const attributes = { name: 'Generated', timezone: 'Europe/Berlin' }
  const created = await createEvent({ body: { data: { type: 'event', attributes } } })
  assert.equal(created.response?.status, 201)
}

void main()
