// kitsu: plain objects; types go out in camelCase and plural, a DELETE carries a body.
import assert from 'node:assert/strict'
import Kitsu from 'kitsu'
import { root, signIn } from './session.js'

const api = new Kitsu({ baseURL: root, headers: { Authorization: `JWT ${await signIn()}` } })

const { data: events, meta } = await api.get('event', {
  params: { filter: { state: 'published' }, sort: 'name', page: { size: 1 } },
})
assert.deepEqual(events.map((each) => each.name), ['Garden Party'])
assert.equal(meta.count, 2)

const { data: event } = await api.get('event/1', { params: { include: 'faqs,faq-types', fields: { faqs: 'question' } } })
assert.deepEqual(event.faqs.data.map((faq) => faq.question), ['Where is it?', 'Where can I park?', 'Who may come?'])

const { data: renamed } = await api.update('event', { id: 1, name: 'Open Tech Summit 2099' })
assert.equal(renamed.name, 'Open Tech Summit 2099')

const { data: faq } = await api.create('faq', {
  question: 'May I bring my dog?',
  answer: 'No',
  event: { data: { id: 1 } },
})
await api.update('faqs', { id: faq.id, answer: 'On a lead' })
const linkage = `faqs/${faq.id}/relationships/faq-type`
await api.request({ method: 'PATCH', url: linkage, type: 'faqType', body: { id: 2 } })
const { data: related } = await api.get(`faqs/${faq.id}/faq-type`)
assert.equal(related.name, 'Tickets')

await api.remove('faqs', 2)

const refused = await api.create('faq', { question: ' ', answer: 'x', event: { data: { id: 1 } } }).catch((error) => error)
assert.deepEqual(refused.errors.map((error) => error.source.pointer), ['/data/attributes/question'])
