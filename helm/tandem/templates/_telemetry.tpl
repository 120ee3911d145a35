{{/* Options of a service's telemetry, as a map. Takes (list $ service). */}}
{{- define "tandem.telemetryArguments" -}}
{{- $root := index . 0 -}}
log-level: {{ $root.Values.telemetry.logLevel }}
{{- end -}}

{{/* Environment of a service's telemetry. Takes (list $ service). */}}
{{- define "tandem.telemetryEnvironment" -}}
{{- $root := index . 0 -}}
{{- $otlp := $root.Values.telemetry.otlp -}}
{{- if $otlp.endpoint }}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ $otlp.endpoint }}
- name: OTEL_EXPORTER_OTLP_PROTOCOL
  value: grpc
- name: OTEL_SERVICE_NAME
  value: tandem-{{ index . 1 }}
- name: OTEL_RESOURCE_ATTRIBUTES
  value: k8s.namespace.name={{ $root.Release.Namespace }},k8s.pod.name=$(POD_NAME),service.instance.id=$(POD_NAME)
- name: OTEL_TRACES_SAMPLER
  value: parentbased_traceidratio
- name: OTEL_TRACES_SAMPLER_ARG
  value: {{ $otlp.sampledShare | quote }}
{{- end }}
{{- end -}}

{{/* The port that Prometheus scrapes. Takes (list $ service). */}}
{{- define "tandem.metricsPort" -}}
{{- end -}}
