// What orval does not read in the description: its server, and in version 7 that lists are separated by commas.
module.exports = {
  api: {
    input: process.env.INPUT,
    output: {
      target: process.env.OUTPUT,
      client: 'fetch',
      baseUrl: { getBaseUrlFromSpecification: true },
      override: { fetch: { explode: false, includeHttpResponseReturnType: true } },
    },
  },
}
