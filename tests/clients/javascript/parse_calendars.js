// Reads {name: calendar file} and prints {name: [start, end, summary]} as ical.js reads them, times in seconds since 1970.
import { readFileSync } from 'node:fs'
import ICAL from 'ical.js'

const read = {}
for (const [name, content] of Object.entries(JSON.parse(readFileSync(0, 'utf8')))) {
  const event = new ICAL.Event(new ICAL.Component(ICAL.parse(content)).getFirstSubcomponent('vevent'))
  read[name] = [event.startDate.toJSDate() / 1000, event.endDate.toJSDate() / 1000, event.summary]
}
console.log(JSON.stringify(read))
