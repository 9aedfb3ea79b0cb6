// Checks custom resources (a JSON list on standard input) against the types that their operators publish. Prints the
// problems as a JSON list of texts. It checks types and required fields, but does not detect unknown fields.

import { readFileSync } from 'node:fs';
import { HTTPRoute } from '@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1';
import { PodMonitor, PrometheusRule, ServiceMonitor } from '@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1';

const kinds = { HTTPRoute, PodMonitor, PrometheusRule, ServiceMonitor };
const wrong = [];
for (const resource of JSON.parse(readFileSync(0, 'utf8'))) {
  const Kind = kinds[resource.kind];
  try {
    if (!Kind) throw new Error('the kind has no types');
    if (resource.apiVersion !== new Kind().apiVersion) throw new Error(`not ${new Kind().apiVersion}`);
    new Kind(resource).validate();
  } catch (error) {
    wrong.push(`${resource.kind} ${resource.metadata?.name}: ${error.message}`);
  }
}
console.log(JSON.stringify(wrong));
