// openapi-typescript makes types, openapi-fetch asks.
import assert from 'node:assert/strict'
import createClient from 'openapi-fetch'
import type { paths } from './client/api'

async function main(): Promise<void> {
  const { SERVER: baseUrl, EMAIL: email = '', PASSWORD: password = '' } = process.env
  const api = createClient<paths>({ baseUrl, querySerializer: { array: { style: 'form', explode: false } } })
  const tokens = await api.POST('/v1/auth/login', { body: { email, password } })
  api.use({
    onRequest({ request }) {
      request.headers.set('Authorization', `JWT ${tokens.data?.access_token}`)
      return request
    },
  })

  const query = { 'filter[name]': 'Open Tech Summit', include: ['faqs' as const, 'owner' as const] }
  const found = await api.GET('/v1/events', { params: { query } })
  assert.equal(found.data?.data[0].attributes?.name, 'Open Tech Summit')
  const included = found.data?.included ?? []
  const questions = included.flatMap((each) => (each.type === 'faq' ? [each.attributes?.question] : []))
  assert.deepEqual(questions.sort(), ['Where can I park?', 'Where is it?', 'Who may come?'])

  const attributes = { name: 'Generated', timezone: 'Europe/Berlin' }
  const created = await api.POST('/v1/events', { body: { data: { type: 'event', attributes } } })
  assert.equal(created.response.status, 201)
}

void main()
