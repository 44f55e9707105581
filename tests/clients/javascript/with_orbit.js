// @orbit/jsonapi: a source of records with ids of its own; our ids are a key of theirs.
import assert from 'node:assert/strict'
import { JSONAPISerializers, JSONAPISource } from '@orbit/jsonapi'
import { RecordKeyMap, RecordSchema } from '@orbit/records'
import { buildSerializerSettingsFor } from '@orbit/serializers'
import { root, signIn } from './session.js'

const keys = { remoteId: {} }
const text = { type: 'string' }
const schema = new RecordSchema({
  models: {
    event: {
      keys,
      attributes: { name: text, state: text, startsAt: { type: 'datetime' } },
      relationships: {
        faqs: { kind: 'hasMany', type: 'faq', inverse: 'event' },
        faqTypes: { kind: 'hasMany', type: 'faqType', inverse: 'event' },
      },
    },
    faqType: {
      keys,
      attributes: { name: text },
      relationships: {
        event: { kind: 'hasOne', type: 'event', inverse: 'faqTypes' },
        faqs: { kind: 'hasMany', type: 'faq', inverse: 'faqType' },
      },
    },
    faq: {
      keys,
      attributes: { question: text, answer: text },
      relationships: {
        event: { kind: 'hasOne', type: 'event', inverse: 'faqs' },
        faqType: { kind: 'hasOne', type: 'faqType', inverse: 'faqs' },
      },
    },
  },
})
const dashed = { serializationOptions: { inflectors: ['dasherize'] } }
const api = new JSONAPISource({
  schema,
  keyMap: new RecordKeyMap(),
  host: root.replace('/v1', ''),
  namespace: 'v1',
  defaultFetchSettings: { headers: { Authorization: `JWT ${await signIn()}` } },
  serializerSettingsFor: buildSerializerSettingsFor({
    settingsByType: {
      [JSONAPISerializers.ResourceType]: dashed,
      [JSONAPISerializers.ResourceField]: dashed,
      [JSONAPISerializers.ResourceFieldParam]: dashed,
    },
  }),
})

const published = { attribute: 'state', value: 'published' }
const events = await api.query((q) => q.findRecords('event').filter(published).sort('name'), { page: { size: 2 } })
assert.deepEqual(events.map((each) => each.attributes.name), ['Garden Party', 'Open Tech Summit'])

const { data: event, details: [response] } = await api.query((q) => q.findRecord(events[1]), {
  include: ['faqs', 'faqTypes'],
  fullResponse: true,
})
const names = response.document.included.filter((each) => each.type === 'faq').map((each) => each.attributes.question)
assert.deepEqual(names, ['Where is it?', 'Where can I park?', 'Who may come?'])
assert.equal(event.attributes.startsAt.toISOString(), '2099-05-01T08:00:00.000Z')
const [, parking] = event.relationships.faqs.data
const [, tickets] = event.relationships.faqTypes.data

await api.update((t) => t.replaceAttribute(event, 'name', 'Open Tech Summit 2099'))

const asked = (question) => ({
  type: 'faq',
  attributes: { question, answer: 'No' },
  relationships: { event: { data: event } },
})
const faq = await api.update((t) => t.addRecord(asked('May I bring my dog?')))
await api.update((t) => t.updateRecord({ ...faq, attributes: { answer: 'On a lead' } }))
await api.update((t) => t.addToRelatedRecords(tickets, 'faqs', faq))
const related = await api.query((q) => q.findRelatedRecord(faq, 'faqType'))
assert.equal(related.id, tickets.id)

await api.update((t) => t.removeRecord(parking))

const refused = await api.update((t) => t.addRecord(asked(' '))).catch((error) => error)
assert.equal(refused.data.errors[0].source.pointer, '/data/attributes/question')
