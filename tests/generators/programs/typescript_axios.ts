// openapi-generator, typescript-axios.
import assert from 'node:assert/strict'
import { AuthApi, Configuration, EventsApi } from './client'

async function main(): Promise<void> {
  const { SERVER: basePath, EMAIL: email = '', PASSWORD: password = '' } = process.env
  const tokens = await new AuthApi(new Configuration({ basePath })).logIn({ email, password })
  const events = new EventsApi(new Configuration({ basePath, accessToken: tokens.data.access_token }))

  const found = await events.getEvent('1', undefined, undefined, undefined, undefined, undefined, undefined, ['faqs', 'owner'])
  assert.equal(found.data.data.attributes?.name, 'Open Tech Summit')
  const included = found.data.included ?? []
  const questions = included.flatMap((each) => (each.type === 'faq' ? [each.attributes?.question] : []))
  assert.deepEqual(questions.sort(), ['Where can I park?', 'Where is it?', 'Who may come?'])
}

void main()
