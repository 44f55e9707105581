// API Blueprint on stdin -> drafter's parse result on stdout, as JSON.
const drafter = require("drafter.js");
const source = require("fs").readFileSync(0, "utf8");
process.stdout.write(JSON.stringify(drafter.parseSync(source, { requireBlueprintName: true })));
