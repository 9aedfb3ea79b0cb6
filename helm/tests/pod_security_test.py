"""All pods pass Pod Security at level "restricted"."""

import copy

from support import chart
from support.pod_security import violations
from support.rules import for_each, rule, same


def pods(name):
    """The pods of a file of the matrix, by name."""
    return {one["metadata"]["name"]: chart.pod_of(one) for one in chart.render(name) if chart.pod_of(one)}


@for_each(chart.MATRIX)
def every_pod_is_restricted(name):
    for pod, spec in pods(name).items():
        same(violations(spec), [], pod)


@rule
def every_violation_of_restricted_is_detected():
    breaches = {
        "hostNetwork": lambda pod, box: pod.update(hostNetwork=True),
        "volume host": lambda pod, box: pod.update(volumes=[{"name": "host", "hostPath": {"path": "/"}}]),
        "sysctls": lambda pod, box: pod["securityContext"].update(sysctls=[{"name": "kernel.msgmax", "value": "1"}]),
        "privileged": lambda pod, box: box["securityContext"].update(privileged=True),
        "allowPrivilegeEscalation": lambda pod, box: box["securityContext"].pop("allowPrivilegeEscalation"),
        "runAsNonRoot": lambda pod, box: pod["securityContext"].pop("runAsNonRoot"),
        "runAsUser": lambda pod, box: box["securityContext"].update(runAsUser=0),
        "seccompProfile": lambda pod, box: pod["securityContext"].pop("seccompProfile"),
        "capabilities.drop": lambda pod, box: box["securityContext"].pop("capabilities"),
        "capabilities.add": lambda pod, box: box["securityContext"]["capabilities"].update(add=["SYS_TIME"]),
        "hostPort": lambda pod, box: box["ports"][0].update(hostPort=8080),
    }
    for breach, commit in breaches.items():
        spec = copy.deepcopy(chart.pod_of(chart.relay(chart.render("defaults"))))
        commit(spec, spec["containers"][0])
        same(violations(spec), [breach])


@for_each(chart.MATRIX)
def containers_are_read_only_and_have_no_cluster_token(name):
    for pod, spec in pods(name).items():
        same(spec["automountServiceAccountToken"], False, pod)
        same(spec["enableServiceLinks"], False, pod)
        for box in spec["containers"]:
            same(box["securityContext"]["readOnlyRootFilesystem"], True, pod)
    for one in chart.render(name):
        if one["kind"] == "ServiceAccount":
            same(one["automountServiceAccountToken"], False)


@for_each(chart.MATRIX)
def every_container_has_a_memory_limit_and_no_cpu_limit(name):
    for pod, spec in pods(name).items():
        for box in spec["containers"]:
            assert "memory" in box["resources"]["limits"] and "cpu" not in box["resources"]["limits"], pod
            assert {"cpu", "memory"} <= set(box["resources"]["requests"]), pod
