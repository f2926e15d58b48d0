{{- define "ddpm-ray.name" -}}
{{ .Release.Name | trunc 50 | trimSuffix "-" }}-operator
{{- end }}

{{/* The labels that select the operator's pods. The NetworkPolicy of each attempt allows ingress from exactly these pods. */}}
{{- define "ddpm-ray.selector" -}}
app.kubernetes.io/name: ddpm-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "ddpm-ray.labels" -}}
{{ include "ddpm-ray.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: ddpm-ray
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "ddpm-ray.templates" -}}
{{ include "ddpm-ray.name" . }}-templates
{{- end }}

{{- define "ddpm-ray.metrics" -}}
{{ include "ddpm-ray.name" . }}-metrics
{{- end }}

{{- define "ddpm-ray.key" -}}
{{ include "ddpm-ray.name" . }}-key
{{- end }}

{{/* The objects of `helm test` are created in the release's namespace if it is watched, else in the first watched one. */}}
{{- define "ddpm-ray.test" -}}
{{ .Release.Name | trunc 30 | trimSuffix "-" }}-test
{{- end }}

{{- define "ddpm-ray.test-namespace" -}}
{{- if or (not .Values.watchNamespaces) (has .Release.Namespace .Values.watchNamespaces) -}}
{{ .Release.Namespace }}
{{- else -}}
{{ first .Values.watchNamespaces }}
{{- end }}
{{- end }}

{{- define "ddpm-ray.test-labels" -}}
app.kubernetes.io/name: ddpm-ray-test
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: ddpm-ray
{{- end }}

{{/* The argument is the hook weight. Helm creates hooks in ascending order and waits for each pod to complete. */}}
{{- define "ddpm-ray.test-hook" -}}
helm.sh/hook: test
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}
