// Reads {name: document} and prints {name: complaints} for each document that jsonapi-validator refuses.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'

const require = createRequire(import.meta.url)
const { Validator } = require('jsonapi-validator')
const schema = require('jsonapi-validator/lib/schema.json')

// The schema says that page links may be null (so do JSON:API 1.0 and 1.1), and refuses them nevertheless.
schema.definitions.links.additionalProperties = { oneOf: [{ $ref: '#/definitions/link' }, { type: 'null' }] }
const validator = new Validator(schema)

const refused = {}
for (const [name, document] of Object.entries(JSON.parse(readFileSync(0, 'utf8')))) {
  try {
    validator.validate(document)
  } catch (error) {
    if (!error.errors) throw error
    refused[name] = error.errors.map((each) => `${each.dataPath} ${each.message}`)
  }
}
console.log(JSON.stringify(refused))
