"""What one trial costs when it trains alone: ``python -m experiments cost STUDY``.

Never read from packed runs. For each cell, its first trial is attached to the base, fed real
batches, warmed up, and measured on a device that nobody else uses; its weights are thrown away.
The *frozen base* beside it is the same base at the same batches: forward, and backward through
all of its layers, with a trained head and no adapter. Both take turns, so what drifts drifts for
both, and their ratio is paired batch by batch.

The schema of ``results/cost/<study>/<hardware>/<id>.json``, version 1; what is missing is ``null``:

    schema      1
    id, study, cell, trial      as in a result of the trial
    hardware    name of the GPU, or of the processor
    settings    rounds (turns of each side), steps (of a turn), answers (of a turn),
                energy_seconds
    parameters  adapter, head, trainable, base: how many
    batch       rows (of a step), batches (of a turn: the trial's own first ones), lengths (what
                each is cut or padded to), tokens (of a turn, padding left out)
    step        eager          launched from Python
                  p50_ms, p95_ms, samples, examples_per_second, tokens_per_second
                  parts          forward (the gathering of the batch included), backward, optimizer
                                 (clipping included): p50_ms, p95_ms, samples; on a GPU between
                                 events, so the wait for launches counts
                  to_frozen      ratio to the frozen base: median, q25, q75 of rounds
                captured       the whole step replayed from a CUDA graph, which is how trials are
                               trained on a GPU: the same without parts; null where not possible
                not_captured   why it is null
    frozen      step and memory of the frozen base, without ratios
    memory      kept_for_backward_bytes  storages that autograd keeps of the largest batch
                eager, captured          allocated_bytes, reserved_bytes: peak of a turn, with the
                                         weights, the data and the optimizer; null on a CPU
    energy      joules_per_1000_examples, watts, seconds, steps, updates (of NVML's counter in the
                window), resolution_joules (its largest jump); nulls, and reason, without a counter
    files       adapter_bytes (all weights of the base where all are trained), head_bytes: as
                safetensors
    inference   single and batch: rows, and milliseconds from call to answer, adapted and merged
    provenance  as in a result, with gpu_alone: other_processes, other_bytes, idle_utilization,
                before and after
"""
