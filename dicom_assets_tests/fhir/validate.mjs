// Validates resources against the official StructureDefinitions of R4B.
// node validate.mjs NODE_MODULES < resources.ndjson > faults.json (one array of texts for each line)
import { createRequire } from "node:module";
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";

const modules = process.argv[2];
globalThis.WebSocket ??= class WebSocket {}; // the package's client names it; Node has it from version 22 on
const require = createRequire(join(modules, "index.js"));
const { indexStructureDefinitionBundle, validateResource } = require("@medplum/core");
const folder = join(modules, "hl7.fhir.r4b.core");
const definitions = readdirSync(folder)
  .filter((name) => name.startsWith("StructureDefinition-"))
  .map((name) => JSON.parse(readFileSync(join(folder, name), "utf8")))
  .filter((one) => one.derivation !== "constraint");
indexStructureDefinitionBundle(definitions);
const faults = readFileSync(0, "utf8").split("\n").filter((line) => line.trim()).map((line) => {
  try {
    return validateResource(JSON.parse(line))
      .filter((issue) => issue.severity !== "information")
      .map((issue) => `${issue.severity} ${issue.details?.text} at ${issue.expression?.join(", ")}`);
  } catch (error) {
    return (error.outcome?.issue ?? [{ details: { text: String(error) } }])
      .map((issue) => `${issue.severity} ${issue.details?.text} at ${issue.expression?.join(", ")}`);
  }
});
console.log(JSON.stringify(faults));
