{{/* Names, labels, images. */}}

{{- define "livepatch.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{/* 50 characters leave room for what is put behind it. */}}
{{- define "livepatch.fullname" -}}
{{- $name := include "livepatch.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What selects the pods of a component. Takes (list ROOT COMPONENT). */}}
{{- define "livepatch.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "livepatch.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Labels of an object. Takes (list ROOT COMPONENT). */}}
{{- define "livepatch.labels" -}}
{{- $root := index . 0 -}}
{{ include "livepatch.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: livepatch-onprem
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* An image's reference. Takes (list IMAGE DEFAULT-TAG). */}}
{{- define "livepatch.imageOf" -}}
{{- $image := index . 0 -}}
{{- $tag := $image.tag | toString -}}
{{- if not (or $image.tag $image.digest) -}}{{- $tag = index . 1 -}}{{- end -}}
{{- $image.repository -}}
{{- with $tag -}}:{{ . }}{{- end -}}
{{- with $image.digest -}}@{{ . }}{{- end -}}
{{- end -}}

{{- define "livepatch.image" -}}
{{- include "livepatch.imageOf" (list .Values.image .Chart.AppVersion) -}}
{{- end -}}

{{- define "livepatch.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "livepatch.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{- define "livepatch.claim" -}}
{{- .Values.persistence.existingClaim | default (printf "%s-patches" (include "livepatch.fullname" .)) -}}
{{- end -}}
