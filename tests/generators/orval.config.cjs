// Without it, orval's functions ask for `/v1/events` at no server.
module.exports = {
  api: {
    input: process.env.INPUT,
    output: {
      target: process.env.OUTPUT,
      client: 'fetch',
      override: { fetch: { includeHttpResponseReturnType: true } },
      baseUrl: { getBaseUrlFromSpecification: true },
    },
  },
}
