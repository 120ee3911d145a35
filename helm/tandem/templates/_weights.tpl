{{/*
Where checkpoints come from. Each source is a way to name them, and volumes that bring them:

  demo   the pair inside the images
  hub    an init container downloads them; services start without a network
  pvc    folders of a claim
  image  OCI images, mounted
*/}}

{{/* How the services name a checkpoint. Takes (list $ "target") or (list $ "drafter"). */}}
{{- define "tandem.checkpoint" -}}
{{- $model := (index . 0).Values.model -}}
{{- $part := index . 1 -}}
{{- if eq $model.source "demo" -}}
/opt/tandem/demo/{{ $part }}
{{- else if eq $model.source "hub" -}}
{{ required (printf "model.hub.%s is required with model.source hub" $part) (index $model.hub $part) }}
{{- else if eq $model.source "pvc" -}}
/weights/{{ index $model.pvc $part }}
{{- else -}}
/weights/{{ $part }}
{{- end -}}
{{- end -}}

{{/* Volumes of a pod. Takes (list $ has-drafter). */}}
{{- define "tandem.weightVolumes" -}}
{{- $model := (index . 0).Values.model -}}
{{- if eq $model.source "pvc" }}
- name: weights
  persistentVolumeClaim:
    claimName: {{ required "model.pvc.claimName is required with model.source pvc" $model.pvc.claimName }}
    readOnly: true
{{- else if eq $model.source "image" }}
{{- range (ternary (list "target" "drafter") (list "target") (index . 1)) }}
{{- $image := index $model.image . }}
- name: weights-{{ . }}
  image:
    reference: {{ required (printf "model.image.%s.reference is required with model.source image" .) $image.reference }}
    pullPolicy: {{ $image.pullPolicy }}
{{- end }}
{{- else if eq $model.source "hub" }}
- name: weights
  {{- if and $model.hub.claimName (index . 1) }}
  persistentVolumeClaim:
    claimName: {{ $model.hub.claimName }}
  {{- else }}
  emptyDir:
    sizeLimit: {{ ternary $model.hub.size "1Gi" (index . 1) }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Mounts of a service's container, which only reads. Takes (list $ has-drafter). */}}
{{- define "tandem.weightMounts" -}}
{{- $model := (index . 0).Values.model -}}
{{- if eq $model.source "image" }}
{{- range (ternary (list "target" "drafter") (list "target") (index . 1)) }}
- name: weights-{{ . }}
  mountPath: /weights/{{ . }}
  readOnly: true
{{- end }}
{{- else if ne $model.source "demo" }}
- name: weights
  mountPath: /weights
  readOnly: true
{{- end }}
{{- end -}}

{{/* Environment of a service's container. */}}
{{- define "tandem.weightEnvironment" -}}
{{- if eq .Values.model.source "hub" }}
- name: HF_HUB_CACHE
  value: /weights
- name: HF_HUB_OFFLINE
  value: "1"
{{- end }}
{{- end -}}

{{/* The init container that downloads. Takes (list $ image arguments). */}}
{{- define "tandem.fetchContainer" -}}
{{- $root := index . 0 -}}
{{- $hub := $root.Values.model.hub -}}
- name: fetch
  image: {{ include "tandem.image" (list $root (index . 1)) }}
  imagePullPolicy: {{ $root.Values.images.pullPolicy }}
  command: [tandem, fetch]
  args:
    {{- include "tandem.arguments" (index . 2) | trim | nindent 4 }}
  env:
    - name: HF_HUB_CACHE
      value: /weights
    {{- with $hub.endpoint }}
    - name: HF_ENDPOINT
      value: {{ . }}
    {{- end }}
    {{- with $hub.tokenSecret.name }}
    - name: HF_TOKEN
      valueFrom:
        secretKeyRef:
          name: {{ . }}
          key: {{ $hub.tokenSecret.key }}
    {{- end }}
  securityContext:
    {{- include "tandem.containerSecurity" $root | nindent 4 }}
  resources:
    {{- toYaml $hub.resources | nindent 4 }}
  volumeMounts:
    - name: weights
      mountPath: /weights
    - name: tmp
      mountPath: /tmp
{{- end -}}
