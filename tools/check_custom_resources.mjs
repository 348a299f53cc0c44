// Checks rendered Istio and External Secrets objects against the schemas of these products. In any folder:
//
//   npm install @kubernetes-models/istio@3.0.1 @kubernetes-models/external-secrets@2.0.0 @kubernetes-models/prometheus-operator@6.0.0 js-yaml@4.1.0
//   node --input-type=module - MANIFESTS... < check_custom_resources.mjs
//
// The tests do that if npm is installed. Wrong values, wrong types and missing keys are reported with exit code 1;
// unknown keys are accepted.
import fs from "node:fs";
import path from "node:path";
import * as yaml from "js-yaml";

const packages = { "security.istio.io": "istio", "networking.istio.io": "istio", "external-secrets.io": "external-secrets", "monitoring.coreos.com": "prometheus-operator" };
let checked = 0;
for (const folder of process.argv.slice(2)) {
  for (const name of fs.readdirSync(folder, { recursive: true }).filter((name) => name.endsWith(".yaml"))) {
    const file = path.join(folder, name);
    const manifest = yaml.load(fs.readFileSync(file, "utf8"));
    const [group, version] = manifest.apiVersion.split("/");
    if (!(group in packages)) continue;
    const kinds = await import(`@kubernetes-models/${packages[group]}/${group}/${version}/${manifest.kind}`);
    try {
      new kinds[manifest.kind](manifest).validate();
    } catch (problem) {
      console.log(`${file}: ${manifest.kind}: ${problem.message}`);
      process.exitCode = 1;
    }
    checked += 1;
  }
}
console.log(`${checked} objects checked`);
if (!checked) process.exitCode = 1;
