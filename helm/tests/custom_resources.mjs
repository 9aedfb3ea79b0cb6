// Checks custom resources (a JSON list on standard input) with the types that their operators publish. Prints what is
// wrong as a JSON list of sentences. Types and required fields are checked; a field that does not exist is not noticed.

import { readFileSync } from 'node:fs';
import { HTTPRoute } from '@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1';
import { PodMonitor, PrometheusRule, ServiceMonitor } from '@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1';

const kinds = { HTTPRoute, PodMonitor, PrometheusRule, ServiceMonitor };
const wrong = [];
for (const resource of JSON.parse(readFileSync(0, 'utf8'))) {
  const Kind = kinds[resource.kind];
  try {
    if (!Kind) throw new Error('a kind without types');
    if (resource.apiVersion !== new Kind().apiVersion) throw new Error(`not ${new Kind().apiVersion}`);
    new Kind(resource).validate();
  } catch (error) {
    wrong.push(`${resource.kind} ${resource.metadata?.name}: ${error.message}`);
  }
}
console.log(JSON.stringify(wrong));
