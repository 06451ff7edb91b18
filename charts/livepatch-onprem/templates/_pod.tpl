{{/* What pods of the server's image have in common: rights, environment, volumes. */}}

{{/* Nobody but what the restricted Pod Security Standard allows. Takes (list USER GROUP FSGROUP). */}}
{{- define "livepatch.podSecurity" -}}
runAsNonRoot: true
{{- if not (kindIs "invalid" (index . 0)) }}
runAsUser: {{ index . 0 }}
{{- end }}
{{- if not (kindIs "invalid" (index . 1)) }}
runAsGroup: {{ index . 1 }}
{{- end }}
{{- if not (kindIs "invalid" (index . 2)) }}
fsGroup: {{ index . 2 }}
fsGroupChangePolicy: OnRootMismatch
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "livepatch.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* The head of a pod's spec. enableServiceLinks would give the server variables that it does not know if a service is called lp. */}}
{{- define "livepatch.podHead" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- include "livepatch.podSecurity" (list .Values.security.userId .Values.security.groupId .Values.security.fsGroup) | nindent 2 }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "livepatch.environment" -}}
- name: LIVEPATCH_CONFIG_LOCATION
  value: /etc/livepatch/config/livepatch.yaml
# Where livepatch-admin in this container keeps its session.
- name: HOME
  value: /tmp
{{- range $key, $from := .Values.secrets }}
- name: LP_{{ $key | upper | replace "." "_" | replace "-" "_" }}_FILE
  value: /etc/livepatch/secrets/{{ $key }}
{{- end }}
{{- if .Values.developmentPostgresql.enabled }}
- name: LP_DATABASE_CONNECTION_STRING_FILE
  value: /etc/livepatch/secrets/database.connection-string
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "livepatch.mounts" -}}
- name: config
  mountPath: /etc/livepatch/config
  readOnly: true
{{- if or .Values.secrets .Values.developmentPostgresql.enabled }}
- name: secrets
  mountPath: /etc/livepatch/secrets
  readOnly: true
{{- end }}
{{- if .Values.files }}
- name: files
  mountPath: /etc/livepatch/files
  readOnly: true
{{- end }}
{{- if or .Values.patchTrust.certificates .Values.patchTrust.configMap }}
- name: trust
  mountPath: /etc/livepatch/trust
  readOnly: true
{{- end }}
{{- if .Values.tls.enabled }}
- name: tls
  mountPath: /etc/livepatch/tls
  readOnly: true
{{- end }}
- name: spool
  mountPath: /var/lib/livepatch/spool
- name: tmp
  mountPath: /tmp
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Takes (list ROOT NAME-OF-THE-CONFIGMAP). 288 is 0440: for the group, which is that of the volume. */}}
{{- define "livepatch.volumes" -}}
{{- $root := index . 0 -}}
{{- $values := $root.Values -}}
{{- $configMap := index . 1 -}}
- name: config
  configMap:
    name: {{ $configMap }}
    items:
      - key: livepatch.yaml
        path: livepatch.yaml
{{- if or $values.secrets $values.developmentPostgresql.enabled }}
- name: secrets
  projected:
    defaultMode: 288
    sources:
      {{- range $key, $from := $values.secrets }}
      - secret:
          name: {{ $from.name }}
          items:
            - key: {{ $from.key | default $key }}
              path: {{ $key }}
      {{- end }}
      {{- if $values.developmentPostgresql.enabled }}
      - secret:
          name: {{ include "livepatch.fullname" $root }}-development-postgresql
          items:
            - key: connection-string
              path: database.connection-string
      {{- end }}
{{- end }}
{{- if $values.files }}
- name: files
  projected:
    defaultMode: 288
    sources:
      {{- range $key, $from := $values.files }}
      - {{ ternary "secret" "configMap" (hasKey $from "secret") }}:
          name: {{ $from.secret | default $from.configMap }}
          items:
            - key: {{ $from.key }}
              path: {{ $key }}
      {{- end }}
{{- end }}
{{- if or $values.patchTrust.certificates $values.patchTrust.configMap }}
- name: trust
  projected:
    sources:
      {{- with $values.patchTrust.certificates }}
      - configMap:
          name: {{ $configMap }}
          items:
            {{- range $name, $pem := . }}
            - key: trust.{{ $name }}
              path: {{ $name }}
            {{- end }}
      {{- end }}
      {{- if $values.patchTrust.configMap }}
      - configMap:
          name: {{ $values.patchTrust.configMap }}
          items:
            {{- range $values.patchTrust.configMapKeys }}
            - key: {{ . }}
              path: {{ . }}
            {{- end }}
      {{- end }}
{{- end }}
{{- if $values.tls.enabled }}
- name: tls
  secret:
    secretName: {{ $values.tls.existingSecret }}
    defaultMode: 288
{{- end }}
- name: spool
  emptyDir:
    sizeLimit: {{ $values.scratch.sizeLimit }}
- name: tmp
  emptyDir:
    sizeLimit: 64Mi
{{- with $values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}
