// spraypaint: models with dirty tracking; attribute errors land in `errors` of the model.
import assert from 'node:assert/strict'
import spraypaint from 'spraypaint'
import { root, signIn } from './session.js'

const { SpraypaintBase, attr, belongsTo, hasMany } = spraypaint

const ApplicationRecord = SpraypaintBase.extend({
  static: {
    baseUrl: root.replace('/v1', ''),
    apiNamespace: '/v1',
    jwtStorage: false,
    generateAuthHeader: (token) => `JWT ${token}`,
  },
})
const Event = ApplicationRecord.extend({
  static: { jsonapiType: 'event', endpoint: '/events' },
  attrs: { name: attr(), startsAt: attr(), faqs: hasMany('faq'), faqTypes: hasMany('faq-type') },
})
const FaqType = ApplicationRecord.extend({
  static: { jsonapiType: 'faq-type', endpoint: '/faq-types' },
  attrs: { name: attr(), event: belongsTo('event') },
})
const Faq = ApplicationRecord.extend({
  static: { jsonapiType: 'faq', endpoint: '/faqs' },
  attrs: { question: attr(), answer: attr(), position: attr(), event: belongsTo('event'), faqType: belongsTo('faq-type') },
})

ApplicationRecord.setJWT(await signIn())

const { data: events } = await Event.where({ state: 'published' }).select(['name', 'startsAt']).order('name').per(2).all()
assert.deepEqual(events.map((each) => each.name), ['Garden Party', 'Open Tech Summit'])

const { data: event } = await Event.includes(['faqs', 'faqTypes']).find(1)
assert.equal(event.startsAt, '2099-05-01T08:00:00+00:00')
assert.deepEqual(event.faqs.map((faq) => faq.question), ['Where is it?', 'Where can I park?', 'Who may come?'])
const tickets = event.faqTypes.find((type) => type.name === 'Tickets')

event.name = 'Open Tech Summit 2099'
assert.equal(await event.save(), true)

const faq = new Faq({ question: 'May I bring my dog?', answer: 'No', event })
assert.equal(await faq.save({ with: 'event.id' }), true)
faq.answer = 'On a lead'
assert.equal(await faq.save(), true)
faq.faqType = tickets
assert.equal(await faq.save({ with: 'faqType.id' }), true)

assert.equal(await event.faqs[1].destroy(), true)

const blank = new Faq({ question: ' ', answer: 'x', event })
assert.equal(await blank.save({ with: 'event.id' }), false)
assert.equal(blank.errors.question.message, 'Must not be blank.')
assert.deepEqual(Object.keys(blank.errors), ['question'])

const lonely = new Faq({ question: 'Whose am I?', answer: 'x' })
assert.equal(await lonely.save(), false)
assert.equal(lonely.errors.event.message, 'event is required.')
