// The JavaScript client of LangSmith: a dataset, its examples, and evaluate().
//
// Environment: LANGSMITH_ENDPOINT, LANGSMITH_API_KEY, LANGSMITH_TRACING=true, PROJECT. Prints one JSON object.

import { webcrypto } from "node:crypto";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

globalThis.crypto ??= webcrypto; // Node.js 18 keeps it in a module; the client looks for it here
console.error = () => {};
const say = console.log;
console.log = () => {}; // evaluate() tells where the vendor's page would be

// Its packages are not beside this file: NODE_HOME holds them.
const require = createRequire(pathToFileURL(`${process.env.NODE_HOME}/`));
const { Client } = require("langsmith");
const { evaluate } = require("langsmith/evaluation");

const datasetName = process.env.PROJECT;
const client = new Client();
const dataset = await client.createDataset(datasetName, { description: "numbers" });
const note = { mimeType: "text/plain", data: new TextEncoder().encode("hello") };
await client.createExamples([
  { dataset_id: dataset.id, inputs: { q: "one" }, outputs: { a: "ONE" }, split: "test" },
  { dataset_id: dataset.id, inputs: { q: "two" }, outputs: { a: "?" }, attachments: { note } },
]);
const three = await client.createExample({ dataset_id: dataset.id, inputs: { q: "tree" }, outputs: { a: "THREE" } });
await client.updateExample({ id: three.id, dataset_id: dataset.id, inputs: { q: "three" }, metadata: { n: 3 } });

const examples = [];
for await (const each of client.listExamples({ datasetName, includeAttachments: true })) {
  examples.push([each.inputs.q, each.outputs.a, each.metadata, Object.keys(each.attachments ?? {})]);
}
const correct = ({ outputs, referenceOutputs }) => ({ key: "correct", score: outputs.a === referenceOutputs.a ? 1 : 0 });
const { experimentName } = await evaluate(async ({ q }) => ({ a: q.toUpperCase() }), {
  data: datasetName, client, experimentPrefix: "js", numRepetitions: 2, evaluators: [correct],
});
await client.awaitPendingTraceBatches();
const project = await client.readProject({ projectName: experimentName, includeStats: true });
const splits = await client.listDatasetSplits({ datasetName });
await client.deleteExample(three.id);
const left = (await client.readDataset({ datasetName })).example_count;
await client.deleteDataset({ datasetName });

say(JSON.stringify({
  examples,
  runs: project.run_count,
  correct: [project.feedback_stats.correct.n, project.feedback_stats.correct.avg],
  isOfDataset: project.reference_dataset_id === dataset.id,
  splits,
  left,
  isGone: !(await client.hasDataset({ datasetName })),
}));
