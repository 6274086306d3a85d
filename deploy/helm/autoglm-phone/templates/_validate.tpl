{{- /* What one value cannot know of another. Every message says which values to change. */ -}}
{{- define "autoglm.validate" -}}
{{- $values := .Values -}}
{{- $triton := $values.triton -}}
{{- $autoscaling := $values.autoscaling -}}
{{- $problems := list -}}

{{- /* weights */ -}}
{{- $weights := $values.weights -}}
{{- if and (eq $weights.source "pvc") (not $weights.pvc.claimName) -}}
{{- $problems = append $problems "weights.source is pvc, which needs weights.pvc.claimName." -}}
{{- end -}}
{{- if and (eq $weights.source "initContainer") (not $weights.initContainer.image) -}}
{{- $problems = append $problems "weights.source is initContainer, which needs weights.initContainer.image." -}}
{{- end -}}
{{- if and (eq $weights.source "image") (not $weights.image.reference) -}}
{{- $problems = append $problems "weights.source is image, which needs weights.image.reference." -}}
{{- end -}}
{{- if and (eq $weights.source "hostPath") (not (hasPrefix "/" $weights.hostPath.path)) -}}
{{- $problems = append $problems "weights.source is hostPath, which needs an absolute weights.hostPath.path." -}}
{{- end -}}
{{- if and (eq $weights.source "baked") $weights.sha256 (not $weights.bakedPath) -}}
{{- $problems = append $problems "weights.sha256 of baked weights needs weights.bakedPath: where they are in the image." -}}
{{- end -}}
{{- if and (eq $weights.source "pvc") (eq $weights.pvc.accessMode "ReadWriteOnce") (gt (include "autoglm.maxTritonReplicas" . | int) 1) -}}
{{- $problems = append $problems (printf "weights.pvc.accessMode is ReadWriteOnce, which one node can mount, and up to %s Triton pods may run: use a ReadOnlyMany or ReadWriteMany claim, or one replica." (include "autoglm.maxTritonReplicas" .)) -}}
{{- end -}}
{{- if and (eq $weights.source "image") (not $weights.image.force) (semverCompare "<1.35.0-0" .Capabilities.KubeVersion.Version) -}}
{{- $problems = append $problems (printf "weights.source is image, but image volumes are on by default only from Kubernetes 1.35 and this is %s: set weights.image.force where the feature gate ImageVolume is on." .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- if and $values.engines.enabled (not $values.engines.claimName) -}}
{{- $problems = append $problems "engines.enabled needs engines.claimName: the claim that the build writes and Triton reads." -}}
{{- end -}}
{{- if and $values.engines.enabled (not (include "autoglm.checkpointPath" .)) -}}
{{- $problems = append $problems "engines.enabled needs to know the checkpoint: weights.bakedPath, or another weights.source." -}}
{{- end -}}
{{- if and $values.engines.enabled (ne $triton.device "cuda") -}}
{{- $problems = append $problems "engines.enabled needs triton.device cuda: TensorRT engines run on GPUs only." -}}
{{- end -}}

{{- /* GPUs */ -}}
{{- if and $triton.gpu.migProfile (gt (int $triton.tensorParallelSize) 1) -}}
{{- $problems = append $problems "triton.gpu.migProfile excludes triton.tensorParallelSize above 1: a process sees one MIG slice only." -}}
{{- end -}}
{{- if and $triton.gpu.migProfile (ne $triton.device "cuda") -}}
{{- $problems = append $problems "triton.gpu.migProfile needs triton.device cuda." -}}
{{- end -}}
{{- if and $triton.affinity $triton.gpu.products -}}
{{- $problems = append $problems "triton.affinity and triton.gpu.products both choose nodes: write the products into the affinity." -}}
{{- end -}}

{{- /* memory */ -}}
{{- $shm := include "autoglm.shmSize" . | include "autoglm.mebibytes" | int64 -}}
{{- $needed := include "autoglm.shmNeededMebibytes" . | int64 -}}
{{- if lt $shm $needed -}}
{{- $problems = append $problems (printf "triton.shm.sizeLimit is %d MiB, and %v streams of %v messages at 700 bytes each, with triton.shm.baseMiB, need %d MiB." $shm $triton.shm.maxStreams $triton.shm.messagesPerStream $needed) -}}
{{- end -}}
{{- with dig "limits" "memory" "" $triton.resources -}}
{{- $limit := include "autoglm.mebibytes" . | int64 -}}
{{- if ge $shm $limit -}}
{{- $problems = append $problems (printf "triton.resources.limits.memory is %d MiB and /dev/shm alone, which counts as memory, may take %d MiB." $limit $shm) -}}
{{- end -}}
{{- end -}}

{{- with include "autoglm.bodiesMebibytes" . -}}
{{- if gt (int64 $values.gateway.limits.maxBodyBytes) (mul . 1048576) -}}
{{- $problems = append $problems (printf "gateway.limits.maxBodyBytes is %d, more than half of gateway.resources.limits.memory, which is what all bodies get together." (int64 $values.gateway.limits.maxBodyBytes)) -}}
{{- end -}}
{{- end -}}

{{- /* rollout */ -}}
{{- range $name := list "triton" "gateway" -}}
{{- $rollout := (index $values $name).rollout -}}
{{- if and (has (toString $rollout.maxSurge) (list "0" "0%")) (has (toString $rollout.maxUnavailable) (list "0" "0%")) -}}
{{- $problems = append $problems (printf "%s.rollout: maxSurge and maxUnavailable cannot both be 0." $name) -}}
{{- end -}}
{{- end -}}

{{- /* drain */ -}}
{{- $drain := $values.drain -}}
{{- $tritonNeeds := add $drain.endpointLagSeconds $drain.maxGenerationSeconds -}}
{{- $tritonGrace := include "autoglm.tritonGrace" . | int64 -}}
{{- if le $tritonGrace $tritonNeeds -}}
{{- $problems = append $problems (printf "triton.terminationGracePeriodSeconds is %d s, and drain.endpointLagSeconds with drain.maxGenerationSeconds are %d s: it must be longer, or streams are killed." $tritonGrace $tritonNeeds) -}}
{{- end -}}
{{- $gatewayNeeds := add $drain.endpointLagSeconds (include "autoglm.gatewayDrain" . | int64) -}}
{{- $gatewayGrace := include "autoglm.gatewayGrace" . | int64 -}}
{{- if le $gatewayGrace $gatewayNeeds -}}
{{- $problems = append $problems (printf "gateway.terminationGracePeriodSeconds is %d s, and drain.endpointLagSeconds, gateway.limits.maxWaitSeconds and drain.maxGenerationSeconds are %d s together: it must be longer, or streams are killed." $gatewayGrace $gatewayNeeds) -}}
{{- end -}}
{{- if lt $gatewayGrace $tritonGrace -}}
{{- $problems = append $problems (printf "gateway.terminationGracePeriodSeconds is %d s, less than Triton's %d s: the gateway must not die before what it relays." $gatewayGrace $tritonGrace) -}}
{{- end -}}
{{- range $name := list "httpRoute" "istio" -}}
{{- $route := index $values $name -}}
{{- if and $route.enabled $route.timeoutSeconds (lt (int64 $route.timeoutSeconds) (include "autoglm.gatewayDrain" $ | int64)) -}}
{{- $problems = append $problems (printf "%s.timeoutSeconds is %v and would cut answers: a request may wait and generate for %s s. Use 0 or more than that." $name $route.timeoutSeconds (include "autoglm.gatewayDrain" $)) -}}
{{- end -}}
{{- end -}}
{{- if and $values.ingress.enabled (lt (int64 $values.ingress.idleTimeoutSeconds) (include "autoglm.gatewayDrain" . | int64)) -}}
{{- $problems = append $problems (printf "ingress.idleTimeoutSeconds is %v and would cut requests: one may wait and generate for %s s." $values.ingress.idleTimeoutSeconds (include "autoglm.gatewayDrain" .)) -}}
{{- end -}}

{{- /* autoscaling */ -}}
{{- if gt (int $autoscaling.minReplicas) (int $autoscaling.maxReplicas) -}}
{{- $problems = append $problems "autoscaling.minReplicas is more than autoscaling.maxReplicas." -}}
{{- end -}}
{{- if gt (int $values.gateway.autoscaling.minReplicas) (int $values.gateway.autoscaling.maxReplicas) -}}
{{- $problems = append $problems "gateway.autoscaling.minReplicas is more than gateway.autoscaling.maxReplicas." -}}
{{- end -}}
{{- if and (eq $autoscaling.mode "keda") (not $autoscaling.keda.prometheusUrl) -}}
{{- $problems = append $problems "autoscaling.mode is keda, which needs autoscaling.keda.prometheusUrl." -}}
{{- end -}}
{{- if and (include "autoglm.autoscaled" .) (not $values.monitoring.monitors.enabled) -}}
{{- $problems = append $problems (printf "autoscaling.mode is %s, whose signal Prometheus must read: set monitoring.monitors.enabled." $autoscaling.mode) -}}
{{- end -}}
{{- if and $autoscaling.scaleToZero.enabled (ne $autoscaling.mode "keda") -}}
{{- $problems = append $problems "autoscaling.scaleToZero needs autoscaling.mode keda: an HPA cannot scale to zero on every supported Kubernetes." -}}
{{- end -}}
{{- if and $values.gateway.autoscaling.enabled (not (dig "requests" "cpu" "" $values.gateway.resources)) -}}
{{- $problems = append $problems "gateway.autoscaling needs gateway.resources.requests.cpu: utilization is relative to it." -}}
{{- end -}}
{{- if and $values.priorityClass.create (not $values.priorityClass.name) -}}
{{- $problems = append $problems "priorityClass.create needs priorityClass.name." -}}
{{- end -}}

{{- /* options that the chart sets itself */ -}}
{{- range $name := list "only" "host" "port" "grpc-port" "triton-http-port" "triton-grpc-port" "triton-metrics-port" "device" "drain-s" "checkpoint" "tensor-parallel-size" "model-repository" "verbose" "served-model-name" -}}
{{- if hasKey $triton.options $name -}}
{{- $problems = append $problems (printf "triton.options.%s is set by the chart from other values." $name) -}}
{{- end -}}
{{- end -}}
{{- range $name := list "host" "port" "grpc-port" "triton-grpc" "triton-metrics" "balancing" "max-running" "max-waiting" "max-wait-s" "max-body-bytes" "max-bodies-bytes" "drain-s" "served-model-name" "api-keys-file" "tls-cert" "tls-key" "tls-client-ca" "otlp-endpoint" "redis" "redis-prefix" "fake" -}}
{{- if hasKey $values.gateway.options $name -}}
{{- $problems = append $problems (printf "gateway.options.%s is set by the chart from other values, or cannot work here." $name) -}}
{{- end -}}
{{- end -}}

{{- /* traffic */ -}}
{{- if and $values.canary.weight (not $values.canary.service) -}}
{{- $problems = append $problems "canary.weight needs canary.service: the other release's gateway Service." -}}
{{- end -}}
{{- if and $values.canary.weight (not (or $values.httpRoute.enabled $values.istio.enabled)) -}}
{{- $problems = append $problems "canary.weight needs httpRoute.enabled or istio.enabled: an Ingress cannot split by weight." -}}
{{- end -}}
{{- if and $values.httpRoute.enabled (not $values.httpRoute.parentRefs) -}}
{{- $problems = append $problems "httpRoute.enabled needs httpRoute.parentRefs: the Gateway that it attaches to." -}}
{{- end -}}
{{- if and $values.istio.enabled (not $values.istio.hosts) -}}
{{- $problems = append $problems "istio.enabled needs istio.hosts." -}}
{{- end -}}
{{- if and $values.inferencePool.enabled (not $values.inferencePool.endpointPicker.name) -}}
{{- $problems = append $problems "inferencePool.enabled needs inferencePool.endpointPicker.name: the Service of an endpoint picker." -}}
{{- end -}}
{{- if and $values.inferencePool.enabled $values.gateway.tls.existingSecret -}}
{{- $problems = append $problems "inferencePool.enabled excludes gateway.tls: an InferencePool speaks plain HTTP to its pods." -}}
{{- end -}}
{{- if and $values.monitoring.dcgm.enabled (not $values.monitoring.rules.enabled) -}}
{{- $problems = append $problems "monitoring.dcgm.enabled adds alerts and needs monitoring.rules.enabled." -}}
{{- end -}}
{{- if and $values.monitoring.rules.enabled (not $values.monitoring.monitors.enabled) -}}
{{- $problems = append $problems "monitoring.rules.enabled needs monitoring.monitors.enabled: the rules read the labels that the monitors set." -}}
{{- end -}}

{{- if $problems -}}
{{- fail (printf "\n  - %s" (join "\n  - " $problems)) -}}
{{- end -}}
{{- end -}}
