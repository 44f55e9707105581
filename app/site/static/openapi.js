// Shows /openapi.json in Swagger UI.
"use strict";

const dark = matchMedia("(prefers-color-scheme: dark)");

function followColorScheme() {
  document.documentElement.classList.toggle("dark-mode", dark.matches);
}

// Swagger UI fills optional object parameters such as `filter` with example values, which match nothing or are invalid.
function leaveOptionalObjectsEmpty(parameters) {
  for (const parameter of parameters) {
    const schema = parameter.schema ?? {};
    if (!parameter.required && !("example" in parameter) && (schema.type === "object" || parameter.style === "deepObject")) {
      parameter.example = {};
    }
  }
}

async function show() {
  const response = await fetch("/openapi.json");
  const spec = await response.json();
  // Requests go to the origin of the page: PUBLIC_URL may be another name of this server.
  spec.servers = [{ url: location.origin }];
  leaveOptionalObjectsEmpty(Object.values(spec.components.parameters ?? {}));
  for (const path of Object.values(spec.paths)) {
    for (const item of Object.values(path)) {
      leaveOptionalObjectsEmpty(Array.isArray(item) ? item : item.parameters ?? []);
    }
  }
  SwaggerUIBundle({
    spec,
    dom_id: "#viewer",
    deepLinking: true,
    docExpansion: "none",
    filter: true,
    defaultModelsExpandDepth: -1,
    validatorUrl: null,
  });
}

dark.addEventListener("change", followColorScheme);
followColorScheme();
show();
