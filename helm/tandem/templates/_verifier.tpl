{{/*
The verifier's container. With gpu.mode devicePlugin a GPU belongs to one container, so the drafter runs in it too: as
`tandem up` without a gateway.
*/}}
{{- define "tandem.verifierContainer" -}}
{{- $replica := .Values.replica -}}
{{- $verifier := $replica.verifier -}}
{{- $isTogether := and $replica.drafter.enabled (eq .Values.gpu.mode "devicePlugin") -}}
{{- $arguments := dict
  "target" (include "tandem.checkpoint" (list $ "target"))
  "listen" "0.0.0.0:8701"
  "health-listen" "0.0.0.0:8711"
  "model-name" .Values.model.name
  "exchange-directory" "/run/tandem"
  "drain-seconds" $replica.drainSeconds
-}}
{{- if $isTogether -}}
{{- if $replica.drafter.options -}}
{{- fail "replica.drafter.options has no effect with gpu.mode devicePlugin: the drafter takes the verifier's" -}}
{{- end -}}
{{- $_ := set $arguments "gateway" false -}}
{{- $_ := set $arguments "draft-model" (include "tandem.checkpoint" (list $ "drafter")) -}}
{{- else -}}
{{- $_ := set $arguments "drafter" (ternary "unix:/run/tandem/sockets/drafter.sock" "none" $replica.drafter.enabled) -}}
{{- end -}}
{{- if ne .Values.gpu.mode "none" -}}
{{- $_ := set $arguments "device" "cuda" -}}
{{- $_ := set $arguments "dtype" (default "bfloat16" $verifier.options.dtype) -}}
{{- end -}}
{{- $arguments = merge $arguments (include "tandem.verifierTlsArguments" $ | fromYaml) (include "tandem.telemetryArguments" (list $ "verifier") | fromYaml) $verifier.options -}}
- name: verifier
  image: {{ include "tandem.image" (list $ .Values.images.verifier) }}
  imagePullPolicy: {{ .Values.images.pullPolicy }}
  command: [tandem, {{ ternary "up" "verifier" $isTogether }}]
  args:
    {{- include "tandem.arguments" $arguments | trim | nindent 4 }}
  {{- $env := $verifier.env }}
  {{- if and (eq .Values.gpu.mode "none") (not (hasKey $verifier.options "threads")) }}
  {{- /* A container sees all processors of its node: its share is its limit. */}}
  {{- $limit := dict "containerName" "verifier" "resource" "limits.cpu" "divisor" "1" }}
  {{- $env = prepend $env (dict "name" "TANDEM_THREADS" "valueFrom" (dict "resourceFieldRef" $limit)) }}
  {{- end }}
  {{- with include "tandem.environment" (list $ "verifier" $env) }}{{ . | indent 2 }}{{ end }}
  ports:
    - name: grpc
      containerPort: 8701
    - name: health
      containerPort: 8711
    {{- include "tandem.metricsPort" (list $ "verifier") | nindent 4 }}
  {{- include "tandem.probes" (list 8711 $replica.startupMinutes "") | nindent 2 }}
  lifecycle:
    preStop:
      sleep:
        seconds: {{ $replica.preStopSeconds }}
  securityContext:
    {{- include "tandem.containerSecurity" . | nindent 4 }}
  resources:
    {{- include "tandem.gpuResources" (list $ $verifier.resources) | nindent 4 }}
  volumeMounts:
    {{- include "tandem.replicaMounts" $ | nindent 4 }}
    {{- include "tandem.tlsMounts" (list $ "replica") | nindent 4 }}
{{- end -}}

{{/* A container's resources with its share in the GPU. Takes (list $ resources). */}}
{{- define "tandem.gpuResources" -}}
{{- $gpu := (index . 0).Values.gpu -}}
{{- $resources := deepCopy (index . 1) -}}
{{- if eq $gpu.mode "dra" -}}
{{- $_ := set $resources "claims" (list (dict "name" "gpu")) -}}
{{- else if eq $gpu.mode "devicePlugin" -}}
{{- $_ := set $resources "limits" (merge (dict $gpu.devicePlugin.resource 1) (default (dict) $resources.limits)) -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

{{/* What verifier and drafter both see: where they meet, and the weights. */}}
{{- define "tandem.replicaMounts" -}}
- name: tmp
  mountPath: /tmp
- name: exchange
  mountPath: /run/tandem
{{- include "tandem.weightMounts" (list $ .Values.replica.drafter.enabled) }}
{{- end -}}
