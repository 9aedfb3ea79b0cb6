{{/* Names and labels. */}}
{{- define "gitorial-relay.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* 52 letters leave room for the longest suffix, "-dashboard", within 63. */}}
{{- define "gitorial-relay.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains (include "gitorial-relay.name" .) .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "gitorial-relay.name" .) | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "gitorial-relay.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "gitorial-relay.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* The selector of a component's pods. Takes the root and the component's name. It must never change, because a
Deployment's selector is immutable. */}}
{{- define "gitorial-relay.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "gitorial-relay.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "gitorial-relay.labels" -}}
{{- $root := index . 0 -}}
{{ include "gitorial-relay.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 }}
{{- end }}

{{- define "gitorial-relay.image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ printf "%s@%s" .repository .digest }}{{ else }}{{ printf "%s:%s" .repository (default $.Chart.AppVersion .tag) }}{{ end -}}
{{- end -}}
{{- end }}

{{/* A duration such as "1h 30m" in whole seconds, rounded up. */}}
{{- define "gitorial-relay.seconds" -}}
{{- $units := dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000 "d" 86400000 -}}
{{- $sum := 0 -}}
{{- range regexFindAll "[0-9]+(ms|s|m|h|d)" . -1 -}}
{{- $sum = add $sum (mul (regexFind "^[0-9]+" . | int64) (index $units (regexFind "[a-z]+$" .))) -}}
{{- end -}}
{{- div (add $sum 999) 1000 -}}
{{- end }}

{{/* The minimum time for a pod's termination: removal from the Services, drain and exit. */}}
{{- define "gitorial-relay.leastGrace" -}}
{{- $drain := include "gitorial-relay.seconds" (index .Values.config "drain-timeout" | default "25s") -}}
{{- add .Values.shutdown.preStopSeconds $drain .Values.shutdown.slackSeconds -}}
{{- end }}

{{- define "gitorial-relay.grace" -}}
{{- default (include "gitorial-relay.leastGrace" .) .Values.shutdown.terminationGracePeriodSeconds | int64 -}}
{{- end }}

{{/* "yes" if several nodes run from the start, "" if one does. */}}
{{- define "gitorial-relay.several" -}}
{{- if ne .Values.redis.mode "embedded" -}}
{{- if gt (int (ternary .Values.autoscaling.minReplicas .Values.replicaCount .Values.autoscaling.enabled)) 1 }}yes{{ end -}}
{{- end -}}
{{- end }}

{{/* The Deployment's number of nodes. With autoscaling it is the number that runs now, within the limits: a Deployment that
lost its number would fall to one node. Without a Deployment, or without a cluster (`helm template`), it is empty. */}}
{{- define "gitorial-relay.replicas" -}}
{{- if not .Values.autoscaling.enabled -}}
{{- .Values.replicaCount -}}
{{- else -}}
{{- $running := lookup "apps/v1" "Deployment" .Release.Namespace (include "gitorial-relay.fullname" .) -}}
{{- if hasKey (default dict $running.spec) "replicas" -}}
{{- min .Values.autoscaling.maxReplicas (max .Values.autoscaling.minReplicas $running.spec.replicas) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* The path prefix of the relay: the setting, else the path of the Ingress, whose controller may keep it. The nodes answer
without the prefix, too, so a controller may also strip it. */}}
{{- define "gitorial-relay.pathPrefix" -}}
{{- $path := ternary .Values.ingress.path "/" .Values.ingress.enabled -}}
{{- if index .Values.config "path-prefix" -}}
{{- index .Values.config "path-prefix" -}}
{{- else if and (ne $path "/") (regexMatch "^(/[A-Za-z0-9._~-]+)+/?$" $path) -}}
{{- $path -}}
{{- end -}}
{{- end }}

{{/* The environment variable of a setting and its value. Takes the name and the value. Helm reads numbers as floats, so
1000000 would print as 1e+06; YAML reads an unquoted off as false. */}}
{{- define "gitorial-relay.envName" -}}
RELAY_{{ . | upper | replace "-" "_" }}
{{- end }}
{{- define "gitorial-relay.envValue" -}}
{{- $name := index . 0 -}}
{{- $value := index . 1 -}}
{{- if kindIs "slice" $value }}{{ join "," $value -}}
{{- else if kindIs "float64" $value }}{{ int64 $value -}}
{{- else if and (kindIs "bool" $value) (has $name (list "session-listing" "log-level")) }}off
{{- else }}{{ toString $value }}{{ end -}}
{{- end }}

{{/* The contents of the ConfigMap and of the Secret, as separate templates, so that each checksum covers nothing else. */}}
{{- define "gitorial-relay.configData" -}}
{{- $ip := ternary "[::]" "0.0.0.0" (eq .Values.bindAddress "::") -}}
RELAY_LISTEN: {{ printf "%s:8080" $ip | quote }}
RELAY_OPS_LISTEN: {{ printf "%s:9090" $ip | quote }}
{{- with include "gitorial-relay.pathPrefix" . }}
RELAY_PATH_PREFIX: {{ . | quote }}
{{- end }}
{{- range $name, $value := omit .Values.config "path-prefix" }}
{{ include "gitorial-relay.envName" $name }}: {{ include "gitorial-relay.envValue" (list $name $value) | quote }}
{{- end }}
{{- end }}
{{- define "gitorial-relay.secretData" -}}
{{- $redis := .Values.redis -}}
{{- if .Values.adminToken.value }}
admin-token: {{ .Values.adminToken.value | quote }}
{{- end }}
{{- if .Values.clusterSecret.value }}
cluster-secret: {{ .Values.clusterSecret.value | quote }}
{{- end }}
{{- if eq $redis.mode "bundled" }}
redis-url: {{ printf "redis://:%s@%s-redis:6379/0" $redis.bundled.password (include "gitorial-relay.fullname" .) | quote }}
{{- else if eq (include "gitorial-relay.ownRedisUrl" .) "secret" }}
redis-url: {{ default (include "gitorial-relay.redisUrl" .) $redis.external.url | quote }}
{{- end }}
{{- end }}

{{/* The place of Redis's address: a "secret" of the chart, a Secret of the user ("theirs"), or the pod ("plain", where the
kubelet inserts the passwords). Empty without Redis. */}}
{{- define "gitorial-relay.ownRedisUrl" -}}
{{- $external := .Values.redis.external -}}
{{- if eq .Values.redis.mode "bundled" -}}
secret
{{- else if eq .Values.redis.mode "external" -}}
{{- if $external.existingSecret.name -}}theirs
{{- else if or $external.url $external.password $external.sentinel.password -}}secret
{{- else -}}plain{{ end -}}
{{- end -}}
{{- end }}

{{/* Escapes a value for an address. An unescaped "+" would be a plus in a name but a space in a query. */}}
{{- define "gitorial-relay.escape" -}}
{{- urlquery . | replace "+" "%20" -}}
{{- end }}

{{/* The external hosts, each with a port. */}}
{{- define "gitorial-relay.redisHosts" -}}
{{- $port := ternary "26379" "6379" (eq .Values.redis.external.topology "sentinel") -}}
{{- $hosts := list -}}
{{- range .Values.redis.external.hosts -}}
{{- $hosts = append $hosts (ternary . (printf "%s:%s" . $port) (contains ":" .)) -}}
{{- end -}}
{{- join "," $hosts -}}
{{- end }}

{{/* Builds an address: the first host before the path, the others as nodes. */}}
{{- define "gitorial-relay.redisUrl" -}}
{{- $external := .Values.redis.external -}}
{{- $hosts := splitList "," (include "gitorial-relay.redisHosts" .) -}}
{{- $scheme := ternary "rediss" "redis" $external.tls -}}
{{- if ne $external.topology "single" }}{{ $scheme = printf "%s-%s" $scheme $external.topology }}{{ end -}}
{{- $password := include "gitorial-relay.escape" $external.password -}}
{{- if $external.passwordSecret.name }}{{ $password = "$(REDIS_PASSWORD)" }}{{ end -}}
{{- $user := "" -}}
{{- if or $external.username $password -}}
{{- $user = printf "%s:%s@" (include "gitorial-relay.escape" $external.username) $password -}}
{{- end -}}
{{- $query := list -}}
{{- range rest $hosts }}{{ $query = append $query (printf "node=%s" .) }}{{ end -}}
{{- if eq $external.topology "sentinel" -}}
{{- $sentinel := $external.sentinel -}}
{{- $query = append $query (printf "sentinelServiceName=%s" (include "gitorial-relay.escape" $sentinel.service)) -}}
{{- with $sentinel.username }}{{ $query = append $query (printf "sentinelUsername=%s" (include "gitorial-relay.escape" .)) }}{{ end -}}
{{- with $sentinel.password }}{{ $query = append $query (printf "sentinelPassword=%s" (include "gitorial-relay.escape" .)) }}{{ end -}}
{{- if $sentinel.passwordSecret.name }}{{ $query = append $query "sentinelPassword=$(SENTINEL_PASSWORD)" }}{{ end -}}
{{- end -}}
{{- $path := ternary "" (printf "/%d" (int $external.database)) (eq $external.topology "cluster") -}}
{{- printf "%s://%s%s%s%s" $scheme $user (first $hosts) $path (ternary (printf "?%s" (join "&" $query)) "" (gt (len $query) 0)) -}}
{{- end }}

{{/* The ports of Redis, as a JSON list. With Sentinels the servers themselves listen on 6379. */}}
{{- define "gitorial-relay.redisPorts" -}}
{{- $ports := list -}}
{{- if eq .Values.redis.mode "bundled" }}{{ $ports = list 6379 -}}
{{- else if .Values.networkPolicy.redis.ports -}}
{{- range .Values.networkPolicy.redis.ports }}{{ $ports = append $ports (int .) }}{{ end -}}
{{- else if .Values.redis.external.hosts -}}
{{- range splitList "," (include "gitorial-relay.redisHosts" .) }}{{ $ports = append $ports (splitList ":" . | last | int) }}{{ end -}}
{{- if eq .Values.redis.external.topology "sentinel" }}{{ $ports = append $ports 6379 }}{{ end -}}
{{- else }}{{ $ports = list 6379 -}}
{{- end -}}
{{- uniq $ports | toJson -}}
{{- end }}

{{/* The bundled Redis's settings. "noeviction", because an evicted session would be lost. */}}
{{- define "gitorial-relay.redisConf" -}}
{{- $redis := .Values.redis.bundled -}}
{{- if $redis.previousPassword -}}
user default on >{{ $redis.password }} >{{ $redis.previousPassword }} ~* &* +@all
{{- else -}}
requirepass {{ $redis.password }}
{{- end }}
maxmemory {{ $redis.maxmemory }}
maxmemory-policy noeviction
dir /data
save ""
appendonly {{ ternary "yes" "no" $redis.persistence.enabled }}
{{- end }}
