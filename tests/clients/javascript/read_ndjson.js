// Reads a stream of JSON lines from stdin with npm's ndjson and prints it as one JSON array.
import { createRequire } from 'node:module'

const ndjson = createRequire(import.meta.url)('ndjson')

const elements = []
process.stdin
  .pipe(ndjson.parse())
  .on('data', (element) => elements.push(element))
  .on('error', (error) => { throw error })
  .on('end', () => console.log(JSON.stringify(elements)))
