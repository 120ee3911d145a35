{{/* An image's reference, by digest where one is given. Takes (list $ .Values.images.gateway). */}}
{{- define "tandem.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ default $root.Chart.AppVersion $image.tag }}
{{- end -}}
{{- end -}}

{{/* Options as a process takes them. Takes a map of option names without dashes to values. */}}
{{- define "tandem.arguments" -}}
{{- range $name, $value := . }}
{{- if kindIs "bool" $value }}
- {{ printf "--%s%s" (ternary "" "no-" $value) $name }}
{{- else if kindIs "float64" $value }}
{{- /* Whole numbers come from YAML as floats, which would be written with an exponent. */}}
- {{ printf "--%s=%s" $name (eq $value (floor $value) | ternary (int64 $value | toString) (toString $value)) | quote }}
{{- else }}
- {{ printf "--%s=%v" $name $value | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* A service's environment, or nothing. Takes (list $ service env-of-the-values). */}}
{{- define "tandem.environment" -}}
{{- $root := index . 0 -}}
{{- $own := index . 2 -}}
{{- $all := list (include "tandem.weightEnvironment" $root) (include "tandem.telemetryEnvironment" .) -}}
{{- if $own -}}
{{- $all = append $all (toYaml $own) -}}
{{- end -}}
{{- with $all | join "\n" | trim }}
env:
  {{- regexReplaceAll "\n+" . "\n" | nindent 2 }}
{{- end }}
{{- end -}}

{{/* What the restricted Pod Security Standard asks of a pod. */}}
{{- define "tandem.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .Values.securityContext.user }}
runAsGroup: {{ .Values.securityContext.group }}
fsGroup: {{ .Values.securityContext.group }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* The same of a container. */}}
{{- define "tandem.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Where pods run. Takes (list $ component values). */}}
{{- define "tandem.placement" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $values := index . 2 -}}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
  {{- range $values.spreadOver }}
  - topologyKey: {{ . }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "tandem.selector" (list $root $component) | nindent 8 }}
  {{- else }} []
  {{- end }}
{{- end -}}

{{/*
Who is alive and who is ready, asked of a health port. Alive is whoever answers: a gateway without a verifier, or one that
drains, is not ready, but a restart would only make it worse. Takes (list port startup-minutes service-that-has-started).
*/}}
{{- define "tandem.probes" -}}
{{- $port := index . 0 -}}
startupProbe:
  grpc:
    port: {{ $port }}
    service: {{ index . 2 | quote }}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: {{ div (mul (index . 1) 60) 5 }}
livenessProbe:
  grpc:
    port: {{ $port }}
    service: grpc.health.v1.Health
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  grpc:
    port: {{ $port }}
    service: ""
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 1
{{- end -}}

{{/* From the first word of a pod's end until it is killed: out of the endpoints, running requests, tearing down. */}}
{{- define "tandem.graceSeconds" -}}
{{ add .preStopSeconds .drainSeconds 15 }}
{{- end -}}
