// Reads objects of custom resources as a JSON list; prints what their published schemas refuse, a line each.
// The only argument is the node_modules folder with these schemas.
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const packages = {
  "cert-manager.io": "cert-manager",
  "gateway.networking.k8s.io": "gateway-api",
  "keda.sh": "keda",
  "monitoring.coreos.com": "prometheus-operator",
};

for (const object of JSON.parse(readFileSync(0, "utf8"))) {
  const [group, version] = object.apiVersion.split("/");
  const file = `${process.argv[2]}/@kubernetes-models/${packages[group]}/${group}/${version}/${object.kind}.js`;
  const models = await import(pathToFileURL(file));
  try {
    new models[object.kind](object).validate();
  } catch (error) {
    console.log(`${object.kind} ${object.metadata.name}: ${error.message}`);
  }
}
