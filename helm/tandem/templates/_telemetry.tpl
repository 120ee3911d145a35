{{/* Options of a service's telemetry, as a map. Takes (list $ service). */}}
{{- define "tandem.telemetryArguments" -}}
{{- $root := index . 0 -}}
log-level: {{ $root.Values.telemetry.logLevel }}
log-format: {{ $root.Values.telemetry.logFormat }}
metrics-listen: 0.0.0.0:{{ ternary 9465 9464 (eq (index . 1) "drafter") }}
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
{{- $root := index . 0 -}}
{{- if eq (index . 1) "drafter" }}
- name: drafter-metrics
  containerPort: 9465
{{- else }}
- name: metrics
  containerPort: 9464
{{- end }}
{{- if and (eq (index . 1) "verifier") $root.Values.replica.drafter.enabled (eq $root.Values.gpu.mode "devicePlugin") }}
- name: drafter-metrics
  containerPort: 9465
{{- end }}
{{- end -}}
