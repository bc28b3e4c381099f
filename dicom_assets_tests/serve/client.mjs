// dicomweb-client for JavaScript asks a server, and prints what it understood as JSON.
//
// node client.mjs MODULES URL STUDY SERIES INSTANCE FILE
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const [modules, url, study, series, instance, file] = process.argv.slice(2);
const require = createRequire(join(modules, "x.js"));
globalThis.XMLHttpRequest = require("xhr2");
const { DICOMwebClient } = require("dicomweb-client").api;

const client = new DICOMwebClient({ url, singlepart: [] });
const one = { studyInstanceUID: study, seriesInstanceUID: series, sopInstanceUID: instance };
const bytes = (buffer) => Buffer.from(buffer).toString("base64");

const studies = await client.searchForStudies({ queryParams: { ModalitiesInStudy: "CT", limit: 10 } });
const [metadata] = await client.retrieveInstanceMetadata(one);
const frames = await client.retrieveInstanceFrames({ ...one, frameNumbers: [1] });
const bulk = await client.retrieveBulkData({ BulkDataURI: metadata["7FE00010"].BulkDataURI });
const rendered = await client.retrieveInstanceRendered({ ...one, mediaTypes: [{ mediaType: "image/png" }] });
const whole = await client.retrieveInstance(one);
const sent = readFileSync(file);
const stored = await client.storeInstances({
  datasets: [sent.buffer.slice(sent.byteOffset, sent.byteOffset + sent.byteLength)],
});
console.log(
  JSON.stringify({
    studies: studies.map((found) => found["0020000D"].Value[0]).sort(),
    series: (await client.searchForSeries({ studyInstanceUID: study })).length,
    name: metadata["00100010"].Value[0].Alphabetic,
    study_metadata: (await client.retrieveStudyMetadata({ studyInstanceUID: study })).length,
    frame: bytes(frames[0]),
    bulk: bytes(bulk[0] ?? bulk),
    png: bytes(rendered[0] ?? rendered).slice(0, 12),
    whole: bytes(whole),
    stored: typeof stored === "string" ? JSON.parse(stored) : stored,
  })
);
