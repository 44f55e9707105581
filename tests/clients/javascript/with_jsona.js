// jsona: only formats documents, so `fetch` carries them; a resource goes back as it came, with a change in it.
import assert from 'node:assert/strict'
import Jsona from 'jsona'
import { root, signIn } from './session.js'

const formatter = new Jsona()
const headers = { 'Content-Type': 'application/vnd.api+json', Authorization: `JWT ${await signIn()}` }

async function call(method, path, stuff, includeNames) {
  const body = stuff && JSON.stringify(formatter.serialize({ stuff, includeNames }))
  const answer = await fetch(`${root}${path}`, { method, headers, body })
  const document = await answer.json()
  return answer.ok ? formatter.deserialize(document) : document.errors
}

const events = await call('GET', '/events?sort=name&page[size]=2')
assert.deepEqual(events.map((each) => each.name), ['Garden Party', 'Open Tech Summit'])

const event = await call('GET', '/events/1?include=faqs,faq-types')
assert.deepEqual(event.faqs.map((faq) => faq.question), ['Where is it?', 'Where can I park?', 'Who may come?'])

const renamed = await call('PATCH', '/events/1', { ...event, name: 'Open Tech Summit 2099' })
assert.equal(renamed.name, 'Open Tech Summit 2099')

const question = { type: 'faq', question: 'May I bring my dog?', answer: 'No', event, relationshipNames: ['event'] }
const faq = await call('POST', '/faqs', question, ['event'])
const answered = await call('PATCH', `/faqs/${faq.id}`, { ...faq, answer: 'On a lead' })
const tickets = event['faq-types'].find((type) => type.name === 'Tickets')
const related = await call('PATCH', `/faqs/${faq.id}`, {
  ...answered,
  'faq-type': tickets,
  relationshipNames: ['event', 'faq-type'],
})
assert.equal(related['faq-type'].id, tickets.id)

await call('DELETE', '/faqs/2')

const [refused] = await call('POST', '/faqs', { ...question, question: ' ' })
assert.equal(refused.source.pointer, '/data/attributes/question')
