"""Pod Security, level "restricted", for the fields that the chart's pods use."""

VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def violations(spec):
    """The rules that a pod violates."""
    found = []
    pod = spec.get("securityContext", {})
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            found.append(field)
    for volume in spec.get("volumes", []):
        if set(volume) - {"name"} - VOLUMES:
            found.append(f"volume {volume['name']}")
    if pod.get("sysctls"):
        found.append("sysctls")
    for box in spec["containers"] + spec.get("initContainers", []):
        own = box.get("securityContext", {})

        def effective(field, own=own):
            return own.get(field, pod.get(field))

        if own.get("privileged"):
            found.append("privileged")
        if own.get("allowPrivilegeEscalation") is not False:
            found.append("allowPrivilegeEscalation")
        if effective("runAsNonRoot") is not True:
            found.append("runAsNonRoot")
        if effective("runAsUser") == 0:
            found.append("runAsUser")
        if (effective("seccompProfile") or {}).get("type") not in ("RuntimeDefault", "Localhost"):
            found.append("seccompProfile")
        capabilities = own.get("capabilities", {})
        if "ALL" not in capabilities.get("drop", []):
            found.append("capabilities.drop")
        if set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
            found.append("capabilities.add")
        if any(port.get("hostPort") for port in box.get("ports", [])):
            found.append("hostPort")
    return found
