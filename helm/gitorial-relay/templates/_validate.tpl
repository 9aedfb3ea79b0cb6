{{/* The checks that the schema cannot express: invalid combinations of values. Each has a one-sentence message. */}}
{{- define "gitorial-relay.validate" -}}
{{- include "gitorial-relay.validateRedis" . -}}
{{- include "gitorial-relay.validateShutdown" . -}}
{{- include "gitorial-relay.validateListing" . -}}
{{- include "gitorial-relay.validateScaling" . -}}
{{- include "gitorial-relay.validateTheRest" . -}}
{{- end }}

{{- define "gitorial-relay.validateRedis" -}}
{{- $redis := .Values.redis -}}
{{- $external := $redis.external -}}
{{- if eq $redis.mode "embedded" -}}
{{- if or (ne (int .Values.replicaCount) 1) .Values.autoscaling.enabled -}}
{{- fail "redis.mode is embedded: nodes without a common Redis do not share sessions, so replicaCount must be 1 and autoscaling off; set redis.mode to external or bundled" -}}
{{- end -}}
{{- range list "redis-fail-fast" "redis-wait-replicas" -}}
{{- if index $.Values.config . -}}
{{- fail (printf "config.%s needs Redis; set redis.mode to external or bundled" .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if ne $redis.mode "external" -}}
{{- if or $external.url $external.existingSecret.name $external.hosts -}}
{{- fail (printf "redis.external sets an address, but redis.mode is %s; set redis.mode to external" $redis.mode) -}}
{{- end -}}
{{- else -}}
{{- $ways := list $external.url $external.existingSecret.name (join "," $external.hosts) | compact -}}
{{- if ne (len $ways) 1 -}}
{{- fail "redis.mode is external: set exactly one of redis.external.url, redis.external.existingSecret.name and redis.external.hosts" -}}
{{- end -}}
{{- $parts := list $external.username $external.password $external.passwordSecret.name $external.sentinel.service $external.sentinel.username $external.sentinel.password $external.sentinel.passwordSecret.name | compact -}}
{{- $parts = concat $parts (list (ternary "tls" "" $external.tls) (ternary "" "topology" (eq $external.topology "single")) (ternary "database" "" (gt (int $external.database) 0)) | compact) -}}
{{- if and $parts (not $external.hosts) -}}
{{- fail "redis.external: topology, tls, users, passwords and database need hosts; a complete address contains them" -}}
{{- end -}}
{{- if and $external.password $external.passwordSecret.name -}}
{{- fail "redis.external: set the password or its Secret, not both" -}}
{{- end -}}
{{- if and $external.sentinel.password $external.sentinel.passwordSecret.name -}}
{{- fail "redis.external.sentinel: set the password or its Secret, not both" -}}
{{- end -}}
{{- if and (or $external.password $external.sentinel.password) (or $external.passwordSecret.name $external.sentinel.passwordSecret.name) -}}
{{- fail "redis.external: set both passwords as values or both as Secrets" -}}
{{- end -}}
{{- $names := or $external.sentinel.service $external.sentinel.username $external.sentinel.password $external.sentinel.passwordSecret.name -}}
{{- if and (eq $external.topology "sentinel") (not $external.sentinel.service) -}}
{{- fail "redis.external.topology is sentinel: set redis.external.sentinel.service to the Sentinels' name for the service" -}}
{{- else if and (ne $external.topology "sentinel") $names -}}
{{- fail "redis.external.sentinel needs redis.external.topology: sentinel" -}}
{{- end -}}
{{- if and (eq $external.topology "cluster") (gt (int $external.database) 0) -}}
{{- fail "redis.external.database: a cluster has only database 0" -}}
{{- end -}}
{{- if and (eq $external.topology "single") (gt (len $external.hosts) 1) -}}
{{- fail "redis.external.topology is single, but redis.external.hosts has several hosts; set redis.external.topology to sentinel or cluster" -}}
{{- end -}}
{{- if and $external.ca.secretName $external.ca.configMapName -}}
{{- fail "redis.external.ca: set a Secret or a ConfigMap, not both" -}}
{{- end -}}
{{- end -}}
{{- if and (eq $redis.mode "bundled") (not $redis.bundled.password) -}}
{{- fail "redis.mode is bundled: set redis.bundled.password, for example to the output of `openssl rand -hex 16`" -}}
{{- end -}}
{{- if and (ne $redis.mode "bundled") $redis.bundled.previousPassword -}}
{{- fail (printf "redis.bundled.previousPassword is set, but redis.mode is %s" $redis.mode) -}}
{{- end -}}
{{- if eq $redis.mode "bundled" -}}
{{- $secret := printf "%s-redis" (include "gitorial-relay.fullname" .) -}}
{{- $running := (lookup "v1" "Secret" .Release.Namespace $secret).data | default dict -}}
{{- $password := get $running "password" | b64dec -}}
{{- if and $password (not (has $password (list $redis.bundled.password $redis.bundled.previousPassword))) -}}
{{- fail (printf "redis.bundled.password is not the password of the nodes that run now, which would lose Redis and their sessions; keep it, or set redis.bundled.previousPassword to it until they are replaced (kubectl --namespace %s get secret %s --output jsonpath='{.data.password}' | base64 -d)" .Release.Namespace $secret) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "gitorial-relay.validateShutdown" -}}
{{- $least := include "gitorial-relay.leastGrace" . | int64 -}}
{{- with .Values.shutdown.terminationGracePeriodSeconds -}}
{{- if lt (int64 .) $least -}}
{{- fail (printf "shutdown.terminationGracePeriodSeconds is %d, but the sum of preStopSeconds, config.drain-timeout and slackSeconds is %d: the kubelet would kill a node that still has clients" (int64 .) $least) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "gitorial-relay.validateListing" -}}
{{- $listing := index .Values.config "session-listing" | default "off" -}}
{{- $cluster := or .Values.clusterSecret.value .Values.clusterSecret.existingSecret.name -}}
{{- if and .Values.clusterSecret.value .Values.clusterSecret.existingSecret.name -}}
{{- fail "clusterSecret: set the secrets or their Secret, not both" -}}
{{- else if and $cluster (eq .Values.redis.mode "embedded") -}}
{{- fail "clusterSecret is set, but redis.mode is embedded, with one node; set redis.mode to external or bundled" -}}
{{- end -}}
{{- $token := or .Values.adminToken.value .Values.adminToken.existingSecret.name -}}
{{- if and .Values.adminToken.value .Values.adminToken.existingSecret.name -}}
{{- fail "adminToken: set the token or its Secret, not both" -}}
{{- end -}}
{{- if and (eq $listing "admin") (not $token) -}}
{{- fail "config.session-listing is admin, which needs a token; set adminToken.value or adminToken.existingSecret.name" -}}
{{- end -}}
{{- if and (ne $listing "admin") $token -}}
{{- fail (printf "adminToken is set, but config.session-listing is %s; set config.session-listing to admin" $listing) -}}
{{- end -}}
{{- end }}

{{- define "gitorial-relay.validateScaling" -}}
{{- with .Values.autoscaling -}}
{{- if .enabled -}}
{{- if gt (int .minReplicas) (int .maxReplicas) -}}
{{- fail "autoscaling.minReplicas is greater than autoscaling.maxReplicas" -}}
{{- end -}}
{{- if not (or .targetCPUUtilizationPercentage .connections.enabled) -}}
{{- fail "autoscaling has no metric; set targetCPUUtilizationPercentage or connections.enabled" -}}
{{- end -}}
{{- if and .targetCPUUtilizationPercentage (not (dig "requests" "cpu" "" $.Values.resources)) -}}
{{- fail "autoscaling.targetCPUUtilizationPercentage is in per cent of resources.requests.cpu, which is not set" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "gitorial-relay.validateTheRest" -}}
{{- $own := list "RELAY_LISTEN" "RELAY_OPS_LISTEN" "RELAY_REDIS_URL" "RELAY_ADMIN_TOKEN" "REDIS_PASSWORD" "SENTINEL_PASSWORD" -}}
{{- if or .Values.redis.external.ca.secretName .Values.redis.external.ca.configMapName }}{{ $own = append $own "SSL_CERT_FILE" }}{{ end -}}
{{- range $name, $_ := .Values.config }}{{ $own = append $own (include "gitorial-relay.envName" $name) }}{{ end -}}
{{- range .Values.extraEnv -}}
{{- if has .name $own -}}
{{- fail (printf "extraEnv sets %s, which the chart sets itself; use the chart's value for it" .name) -}}
{{- end -}}
{{- end -}}
{{- range list "name" "instance" "component" -}}
{{- if hasKey $.Values.podLabels (printf "app.kubernetes.io/%s" .) -}}
{{- fail (printf "podLabels sets app.kubernetes.io/%s, by which the chart finds its pods" .) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.metrics.podMonitor.enabled .Values.metrics.serviceMonitor.enabled -}}
{{- fail "metrics: podMonitor and serviceMonitor together would scrape every node twice; enable only one" -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) -}}
{{- fail "ingress.enabled needs ingress.hosts" -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
{{- fail "httpRoute.enabled needs httpRoute.parentRefs: the Gateways of the route" -}}
{{- end -}}
{{- if and (ne .Values.bindAddress "::") (eq .Values.service.ipFamilyPolicy "RequireDualStack") -}}
{{- fail "service.ipFamilyPolicy is RequireDualStack, but the relay listens only on IPv4; set bindAddress to ::" -}}
{{- end -}}
{{- end }}
