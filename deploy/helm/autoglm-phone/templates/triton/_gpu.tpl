{{- define "autoglm.gpuResource" -}}
{{- with .Values.triton.gpu -}}
{{- if .migProfile -}}nvidia.com/mig-{{ .migProfile }}{{- else -}}{{ .resourceName }}{{- end -}}
{{- end -}}
{{- end -}}

{{- /* the resources of a container with GPUs: list ROOT RESOURCES GPUS */ -}}
{{- define "autoglm.gpuResources" -}}
{{- $root := index . 0 -}}
{{- $resources := deepCopy (index . 1) -}}
{{- if eq $root.Values.triton.device "cuda" -}}
{{- $gpus := dict (include "autoglm.gpuResource" $root) (index . 2 | int64) -}}
{{- $resources = mergeOverwrite $resources (dict "limits" $gpus "requests" (deepCopy $gpus)) -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

{{- /* which nodes: nodeSelector, tolerations, affinity, runtime class */ -}}
{{- define "autoglm.gpuScheduling" -}}
{{- $triton := .Values.triton -}}
{{- $isGpu := eq $triton.device "cuda" -}}
{{- if and $isGpu $triton.gpu.runtimeClassName }}
runtimeClassName: {{ $triton.gpu.runtimeClassName }}
{{- end }}
{{- with $triton.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if or $triton.tolerations (and $isGpu $triton.gpu.tolerate) }}
tolerations:
  {{- if and $isGpu $triton.gpu.tolerate }}
  - {key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}
  {{- end }}
  {{- with $triton.tolerations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- if $triton.affinity }}
affinity:
  {{- toYaml $triton.affinity | nindent 2 }}
{{- else if and $isGpu $triton.gpu.products }}
affinity:
  nodeAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      nodeSelectorTerms:
        - matchExpressions:
            - key: nvidia.com/gpu.product
              operator: In
              values:
                {{- toYaml $triton.gpu.products | nindent 16 }}
{{- end }}
{{- end -}}

{{- /* bytes that the streams of one pod may hold in /dev/shm, in MiB */ -}}
{{- define "autoglm.shmNeededMebibytes" -}}
{{- $shm := .Values.triton.shm -}}
{{- $bytes := mul (int64 $shm.maxStreams) (int64 $shm.messagesPerStream) 700 -}}
{{- add (int64 $shm.baseMiB) (divf $bytes 1048576.0 | ceil | int64) -}}
{{- end -}}

{{- define "autoglm.shmSize" -}}
{{- if .Values.triton.shm.sizeLimit -}}{{ .Values.triton.shm.sizeLimit }}{{- else -}}{{ include "autoglm.shmNeededMebibytes" . }}Mi{{- end -}}
{{- end -}}
