// devour-client: models by definition; types go out in plural, ids as they are, URLs may end with a slash.
import assert from 'node:assert/strict'
import JsonApi from 'devour-client'
import { root, signIn } from './session.js'

const api = new JsonApi({ apiUrl: root, logger: false, trailingSlash: { collection: true, resource: true } })
api.headers.Authorization = `JWT ${await signIn()}`
api.define('event', {
  name: '',
  'starts-at': '',
  faqs: { jsonApi: 'hasMany', type: 'faqs' },
  'faq-types': { jsonApi: 'hasMany', type: 'faq-types' },
})
api.define('faq-type', { name: '' })
api.define('faq', {
  question: '',
  answer: '',
  event: { jsonApi: 'hasOne', type: 'events' },
  'faq-type': { jsonApi: 'hasOne', type: 'faq-type' },
})

const { data: events } = await api.findAll('event', { filter: { state: 'published' }, sort: 'name', page: { size: 2 } })
assert.deepEqual(events.map((each) => each.name), ['Garden Party', 'Open Tech Summit'])

const { data: event } = await api.find('event', 1, { include: 'faqs,faq-types' })
assert.deepEqual(event.faqs.map((faq) => faq.question), ['Where is it?', 'Where can I park?', 'Who may come?'])

const { data: renamed } = await api.update('event', { ...event, name: 'Open Tech Summit 2099' })
assert.equal(renamed.name, 'Open Tech Summit 2099')

const { data: faq } = await api.create('faq', { question: 'May I bring my dog?', answer: 'No', event: { id: 1 } })
await api.update('faq', { id: faq.id, answer: 'On a lead' })
await api.one('faq', faq.id).relationships('faq-type').patch({ id: 2 })
const { data: related } = await api.request(`${root}/faqs/${faq.id}/faq-type/`)
assert.equal(related.name, 'Tickets')

await api.destroy('faq', 2)

const refused = await api.create('faq', { question: ' ', answer: 'x', event: { id: 1 } }).catch((errors) => errors)
assert.deepEqual(refused, { question: { title: 'Unprocessable content', detail: 'Must not be blank.' } })
