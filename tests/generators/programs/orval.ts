// orval, with its fetch client.
import assert from 'node:assert/strict'
import { createEvent, listEvents, logIn } from './client/api'

async function main(): Promise<void> {
  const { EMAIL: email = '', PASSWORD: password = '' } = process.env
  const tokens = await logIn({ email, password })
  assert(tokens.status === 200)
  const options = { headers: { Authorization: `JWT ${tokens.data.access_token}` } }

  const found = await listEvents({ 'filter[name]': 'Open Tech Summit', include: ['faqs', 'owner'] }, options)
  assert(found.status === 200, JSON.stringify(found.data))
  assert.equal(found.data.data[0].attributes?.name, 'Open Tech Summit')
  const included = found.data.included ?? []
  const questions = included.flatMap((each) => (each.type === 'faq' ? [each.attributes?.question] : []))
  assert.deepEqual(questions.sort(), ['Where can I park?', 'Where is it?', 'Who may come?'])

  const headers = { ...options.headers, 'Content-Type': 'application/vnd.api+json' }
  const attributes = { name: 'Generated', timezone: 'Europe/Berlin' }
  const created = await createEvent({ data: { type: 'event', attributes } }, undefined, { headers })
  assert(created.status === 201, JSON.stringify(created.data))
}

void main()
