{{/*
What cannot work, each with what to do instead; all of it is said at once. The form of single values is in
values.schema.json. tests/chart/bad has a case for each of these.
*/}}
{{- define "livepatch.validate" -}}
{{- $v := .Values -}}
{{- $config := include "livepatch.config" . | fromYaml -}}
{{- $given := include "livepatch.given" . | fromYaml -}}
{{- $wrong := list -}}

{{- /* The configuration itself. */ -}}
{{- $twice := dict -}}
{{- include "livepatch.flatten" (dict "prefix" "" "tree" $v.config "into" dict "twice" $twice) -}}
{{- range $key := keys $twice | sortAlpha -}}
{{- $wrong = append $wrong (printf "config gives %s twice, nested and dotted: keep one of them" $key) -}}
{{- end -}}
{{- range $key := include "livepatch.secretKeys" . | fromYamlArray -}}
{{- if hasKey $given $key -}}
{{- $wrong = append $wrong (printf "config holds the secret %s, and a ConfigMap is no place for one: keep it in a Secret and name that under secrets, as secrets: {%s: {name: my-secret}}" $key $key) -}}
{{- end -}}
{{- if and (hasKey $v.secrets $key) (hasKey $given (printf "%s-file" $key)) -}}
{{- $wrong = append $wrong (printf "secrets and config.%s-file both say where %s is: keep one of them" $key $key) -}}
{{- end -}}
{{- end -}}
{{- range $key, $value := $given -}}
{{- if and (kindIs "string" $value) (regexMatch "://[^/@]*:[^/@]*@" $value) -}}
{{- $wrong = append $wrong (printf "config.%s holds a password, and a ConfigMap is no place for one: keep the URL in a Secret and give it as a variable, with extraEnv and valueFrom.secretKeyRef" $key) -}}
{{- end -}}
{{- end -}}
{{- range $key := keys (include "livepatch.owned" . | fromYaml) | sortAlpha -}}
{{- if hasKey $given $key -}}
{{- $wrong = append $wrong (printf "config.%s is set by the chart (from persistence, tls or files): leave it out of config" $key) -}}
{{- end -}}
{{- end -}}
{{- if and (not $v.tls.enabled) (or (hasKey $given "server.tls.certificate") (hasKey $given "server.tls.key")) -}}
{{- $wrong = append $wrong "config gives server.tls.certificate or server.tls.key, and probes and services would not know of it: use tls.enabled and tls.existingSecret instead" -}}
{{- end -}}
{{- range $v.extraEnv -}}
{{- if and (hasPrefix "LP_" .name) (not .valueFrom) -}}
{{- $wrong = append $wrong (printf "extraEnv gives %s as a plain value: put the server's own keys into config, or into secrets if they are secret" .name) -}}
{{- end -}}
{{- end -}}

{{- /* Addresses. */ -}}
{{- $ports := dict -}}
{{- range $key := list "server.server-address" "server.admin-address" "server.ops-address" -}}
{{- with index $config $key -}}
{{- $port := include "livepatch.portOf" . -}}
{{- if or (not $port) (eq $port "0") -}}
{{- $wrong = append $wrong (printf "config.%s is %q, in which the chart finds no port: give it as :8080" $key .) -}}
{{- else if regexMatch "^(127\\.|localhost:|\\[::1\\])" . -}}
{{- $wrong = append $wrong (printf "config.%s is %q, which nothing outside of the pod can reach: give it as :%s, or [::]:%s with IPv6" $key . $port $port) -}}
{{- else if and (hasKey $ports $port) (ne (index $ports $port) .) -}}
{{- $wrong = append $wrong (printf "config.%s is %q, and port %s is taken by another address: give each its own port" $key . $port) -}}
{{- else if and (hasKey $ports $port) (eq . (index $config "server.server-address")) -}}
{{- $wrong = append $wrong (printf "config.%s is the same as server.server-address: give \"\" to have both on one address" $key) -}}
{{- end -}}
{{- $_ := set $ports $port . -}}
{{- end -}}
{{- end -}}
{{- if not (index $config "server.server-address") -}}
{{- $wrong = append $wrong "config.server.server-address is empty: give the address for machines, as :8080" -}}
{{- end -}}
{{- if not (include "livepatch.shutdownGrace" .) -}}
{{- $wrong = append $wrong (printf "config.server.shutdown-grace is %q, which the chart cannot read: give it as 30s or 1m30s" (index $config "server.shutdown-grace")) -}}
{{- end -}}

{{- /* Database. */ -}}
{{- $database := or (hasKey $v.secrets "database.connection-string") (hasKey $given "database.connection-string-file") -}}
{{- if $v.developmentPostgresql.enabled -}}
{{- if $database -}}
{{- $wrong = append $wrong "developmentPostgresql.enabled and a database.connection-string are two databases: turn off developmentPostgresql, or leave the connection string out" -}}
{{- end -}}
{{- if not $v.developmentPostgresql.password -}}
{{- $wrong = append $wrong "developmentPostgresql.password is missing: give one; the chart makes up no passwords" -}}
{{- end -}}
{{- if eq $v.migration.mode "job" -}}
{{- $wrong = append $wrong "migration.mode is job, and that runs before the development PostgreSQL is there: leave migration.mode out" -}}
{{- end -}}
{{- else if not $database -}}
{{- $wrong = append $wrong "the database is missing: keep its connection string in a Secret and name that, as secrets: {database.connection-string: {name: my-secret}}; to try the chart out, developmentPostgresql.enabled brings a database" -}}
{{- end -}}

{{- /* Storage and how many pods share it. */ -}}
{{- $storage := include "livepatch.storage" . -}}
{{- $most := include "livepatch.mostReplicas" . | int -}}
{{- $accessKey := or (hasKey $v.secrets "patch-storage.s3-access-key") (hasKey $given "patch-storage.s3-access-key-file") -}}
{{- $secretKey := or (hasKey $v.secrets "patch-storage.s3-secret-key") (hasKey $given "patch-storage.s3-secret-key-file") -}}
{{- if not (has $storage (list "filesystem" "s3" "postgres")) -}}
{{- $wrong = append $wrong (printf "config.patch-storage.type is %q: give s3, postgres or filesystem" $storage) -}}
{{- end -}}
{{- if eq $storage "s3" -}}
{{- if not (index $config "patch-storage.s3-bucket") -}}
{{- $wrong = append $wrong "config.patch-storage.type is s3 and there is no bucket: give config.patch-storage.s3-bucket" -}}
{{- end -}}
{{- if ne $accessKey $secretKey -}}
{{- $wrong = append $wrong "only one of patch-storage.s3-access-key and patch-storage.s3-secret-key is under secrets: give both" -}}
{{- else if and (not $accessKey) (not $v.s3.instanceCredentials) -}}
{{- $wrong = append $wrong "config.patch-storage.type is s3 and there are no credentials: give patch-storage.s3-access-key and patch-storage.s3-secret-key under secrets, or set s3.instanceCredentials to use those of the instance or container" -}}
{{- else if and $accessKey $v.s3.instanceCredentials -}}
{{- $wrong = append $wrong "s3.instanceCredentials is set and there is a key pair under secrets: keep one of them" -}}
{{- end -}}
{{- end -}}
{{- if and $v.persistence.enabled (ne $storage "filesystem") -}}
{{- $wrong = append $wrong (printf "persistence.enabled is of no use with config.patch-storage.type %s: turn it off, or make the type filesystem" $storage) -}}
{{- end -}}
{{- if and (eq $storage "filesystem") (gt $most 1) -}}
{{- if not $v.persistence.enabled -}}
{{- $wrong = append $wrong (printf "%d pods would each have patches of their own, since config.patch-storage.type is filesystem and persistence is off: use s3 or postgres, or persistence with accessMode ReadWriteMany, or replicaCount 1" $most) -}}
{{- else if ne $v.persistence.accessMode "ReadWriteMany" -}}
{{- $wrong = append $wrong (printf "%d pods cannot share a volume of access mode %s: use s3 or postgres, or persistence.accessMode ReadWriteMany, or replicaCount 1" $most $v.persistence.accessMode) -}}
{{- end -}}
{{- end -}}
{{- if $v.autoscaling.enabled -}}
{{- if not (kindIs "invalid" $v.replicaCount) -}}
{{- $wrong = append $wrong "autoscaling.enabled and replicaCount both say how many pods run: leave replicaCount out" -}}
{{- end -}}
{{- if gt ($v.autoscaling.minReplicas | int) ($v.autoscaling.maxReplicas | int) -}}
{{- $wrong = append $wrong "autoscaling.minReplicas is more than autoscaling.maxReplicas: lower one or raise the other" -}}
{{- end -}}
{{- if not (or $v.autoscaling.targetCPU $v.autoscaling.targetMemory) -}}
{{- $wrong = append $wrong "autoscaling.enabled has nothing to go by: give autoscaling.targetCPU or autoscaling.targetMemory" -}}
{{- end -}}
{{- range $name, $target := dict "cpu" $v.autoscaling.targetCPU "memory" $v.autoscaling.targetMemory -}}
{{- if and $target (not (dig "requests" $name "" $v.resources)) -}}
{{- $wrong = append $wrong (printf "the autoscaler aims at a percentage of resources.requests.%s, which is not given: give it" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with $v.podDisruptionBudget -}}
{{- if and .enabled (not (kindIs "invalid" .minAvailable)) (not (kindIs "invalid" .maxUnavailable)) -}}
{{- $wrong = append $wrong "podDisruptionBudget.minAvailable and maxUnavailable are both given: keep one of them" -}}
{{- end -}}
{{- if and .enabled (not (kindIs "string" .minAvailable)) (not (kindIs "invalid" .minAvailable)) (ge (.minAvailable | int) (include "livepatch.replicas" $ | int)) (gt (include "livepatch.replicas" $ | int) 1) -}}
{{- $wrong = append $wrong (printf "podDisruptionBudget.minAvailable %d of %s pods lets no node be drained: lower it, or run more pods" (.minAvailable | int) (include "livepatch.replicas" $)) -}}
{{- end -}}
{{- end -}}

{{- /* Trust, TLS, files. */ -}}
{{- $policy := index $config "patch-trust.policy" | default "require" | toString -}}
{{- if and (eq $policy "require") (not (index $config "patch-trust.certificates")) -}}
{{- $wrong = append $wrong "config.patch-trust.policy is require and there is no certificate to check signatures with: give patchTrust.certificates or patchTrust.configMap with configMapKeys (Canonical's lie in /snap/canonical-livepatch/current/keys/ on a machine with the client), or set config.patch-trust.policy to warn or off" -}}
{{- end -}}
{{- if ne (empty $v.patchTrust.configMap) (empty $v.patchTrust.configMapKeys) -}}
{{- $wrong = append $wrong "patchTrust.configMap and patchTrust.configMapKeys go together: give both" -}}
{{- end -}}
{{- range $v.patchTrust.configMapKeys -}}
{{- if hasKey $v.patchTrust.certificates . -}}
{{- $wrong = append $wrong (printf "%s is in patchTrust.certificates and in patchTrust.configMapKeys: rename one" .) -}}
{{- end -}}
{{- end -}}
{{- if and $v.tls.enabled (not $v.tls.existingSecret) -}}
{{- $wrong = append $wrong "tls.enabled needs a certificate: name a Secret of type kubernetes.io/tls in tls.existingSecret" -}}
{{- end -}}
{{- if and $v.tls.existingSecret (not $v.tls.enabled) -}}
{{- $wrong = append $wrong "tls.existingSecret is given and tls.enabled is not: set tls.enabled, or leave the Secret out" -}}
{{- end -}}
{{- $clientCa := index $config "server.tls.client-ca" -}}
{{- $clientAuth := index $config "server.tls.client-auth" | default "auto" | toString -}}
{{- if and $clientCa (not $v.tls.enabled) -}}
{{- $wrong = append $wrong "server.tls.client-ca is given and the server speaks no TLS: set tls.enabled" -}}
{{- end -}}
{{- if and $clientCa (not (has $clientAuth (list "none" "optional"))) (eq (include "livepatch.opsPort" .) "clients") -}}
{{- $wrong = append $wrong "clients must show a certificate (server.tls.client-ca), which probes cannot: give config.server.ops-address, as :9090" -}}
{{- end -}}
{{- if ne (hasKey $v.files "patch-sync.upstream-tls-certificate") (hasKey $v.files "patch-sync.upstream-tls-key") -}}
{{- $wrong = append $wrong "only one of patch-sync.upstream-tls-certificate and patch-sync.upstream-tls-key is under files: give both" -}}
{{- end -}}
{{- if and (eq (index $config "auth.basic.enabled" | toString) "true") (not (hasKey $v.secrets "auth.basic.users")) (not (hasKey $given "auth.basic.users-file")) -}}
{{- $wrong = append $wrong "config.auth.basic.enabled is set and there are no users: give auth.basic.users under secrets" -}}
{{- end -}}

{{- /* The way in. */ -}}
{{- if and $v.ingress.enabled $v.httpRoute.enabled -}}
{{- $wrong = append $wrong "ingress.enabled and httpRoute.enabled are two ways to the same service: turn one of them off" -}}
{{- end -}}
{{- if and $v.ingress.enabled (not $v.ingress.hosts) -}}
{{- $wrong = append $wrong "ingress.enabled has no hosts: give ingress.hosts, as [{host: livepatch.example.com}]" -}}
{{- end -}}
{{- if and $v.httpRoute.enabled (not $v.httpRoute.parentRefs) -}}
{{- $wrong = append $wrong "httpRoute.enabled has no gateway: give httpRoute.parentRefs, as [{name: my-gateway, namespace: gateways}]" -}}
{{- end -}}
{{- if and $clientCa (not (has $clientAuth (list "none" "optional"))) -}}
{{- $ends := "ends the machines' TLS and has no certificate to show, and the server wants one (server.tls.client-ca): use service.type LoadBalancer" -}}
{{- if and $v.ingress.enabled (not (regexMatch "passthrough" (keys $v.ingress.annotations | join " "))) -}}
{{- $wrong = append $wrong (printf "an Ingress %s, a controller that passes TLS through (by an annotation with passthrough in its name), or config.server.tls.client-auth optional" $ends) -}}
{{- end -}}
{{- if $v.httpRoute.enabled -}}
{{- $wrong = append $wrong (printf "an HTTPRoute %s, or config.server.tls.client-auth optional" $ends) -}}
{{- end -}}
{{- end -}}
{{- if and $v.networkPolicy.enabled $v.serviceMonitor.enabled (kindIs "invalid" $v.networkPolicy.opsFrom) -}}
{{- $wrong = append $wrong "serviceMonitor.enabled, and networkPolicy.opsFrom does not say where Prometheus is: give it, as [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: monitoring}}}], or [{podSelector: {}}] if it is in this namespace" -}}
{{- end -}}
{{- if and $v.service.nodePort (eq $v.service.type "ClusterIP") -}}
{{- $wrong = append $wrong "service.nodePort is of no use with service.type ClusterIP: leave it out, or make the type NodePort or LoadBalancer" -}}
{{- end -}}

{{- if $wrong -}}
{{- fail (printf "these values cannot work:\n\n- %s\n" (join "\n- " $wrong)) -}}
{{- end -}}
{{- end -}}
