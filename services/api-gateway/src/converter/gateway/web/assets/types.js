/**
 * What the internal API answers, as far as the page reads it.
 *
 * @typedef {"onnx" | "bie" | "nef"} Stage
 * @typedef {"queued" | "running" | "completed" | "failed" | "cancelled"} Status
 * @typedef {{field: string, message: string}} FieldProblem
 *
 * @typedef {object} StageTiming
 * @property {string | null} queued_at
 * @property {string | null} started_at
 * @property {string | null} completed_at
 * @property {number | null} duration_ms
 * @property {boolean} cached
 *
 * @typedef {object} Artifact
 * @property {string} filename
 * @property {number} size_bytes
 * @property {string} sha256
 * @property {string} created_at
 * @property {{filename: string} | null} provenance the signed statement of how it was made
 *
 * @typedef {object} Failure
 * @property {string} code
 * @property {string} message
 * @property {Stage | null} stage
 * @property {"input" | "toolchain" | "service"} fault
 * @property {boolean} retryable
 * @property {string | null} node
 * @property {string | null} op
 * @property {string | null} evidence
 * @property {string} hint
 *
 * @typedef {object} Promotion
 * @property {string} promotion_id
 * @property {Stage} source
 * @property {string} target_object_key
 * @property {"pending" | "completed" | "failed"} status
 * @property {string} at
 * @property {{code: string, message: string} | null} error
 *
 * @typedef {object} Options
 * @property {Stage} targets
 * @property {Record<string, number[]>} input_shape
 * @property {string | object} preprocess
 * @property {Record<string, unknown>} quantization
 *
 * @typedef {object} Job
 * @property {string} job_id
 * @property {string | null} user_id null for a job that operators posted
 * @property {string} client_id
 * @property {Status} v1_status
 * @property {Stage | null} stage
 * @property {number} progress of the whole job, 0..1
 * @property {string | null} activity
 * @property {number | null} queue_position
 * @property {number | null} estimated_wait_s
 * @property {string} platform
 * @property {number} model_id
 * @property {string} version
 * @property {{filename: string, size_bytes: number, sha256: string}} model
 * @property {number} ref_images_count
 * @property {Options} options
 * @property {Partial<Record<Stage, StageTiming>>} stage_timings
 * @property {Partial<Record<Stage, Artifact>>} artifacts
 * @property {{filename: string, kind: "artifact" | "provenance" | "report" | "log", stage: Stage}[]} files
 * @property {Promotion[]} promotions
 * @property {Failure | null} error
 * @property {string[]} warnings
 * @property {{name: string, version: string} | null} toolchain
 * @property {string} created_at
 * @property {string} updated_at
 * @property {string | null} completed_at
 * @property {string} expires_at
 *
 * @typedef {object} StageProgress what an event of that name says
 * @property {Stage} stage
 * @property {number} fraction of the stage, 0..1
 * @property {string} activity
 * @property {number} progress of the whole job, 0..1
 *
 * @typedef {{job_id: string, stages: Partial<Record<Stage, any>>}} Report
 */

/** @type {Stage[]} */
export const STAGES = ["onnx", "bie", "nef"];

/** What each stage does, in two words. */
export const PURPOSES = { onnx: "Check and optimise", bie: "Quantise", nef: "Package" };

/** @param {Job} job */
export function active(job) {
  return job.v1_status === "queued" || job.v1_status === "running";
}

/**
 * The stages that the job runs.
 * @param {Job} job
 */
export function stagesOf(job) {
  return STAGES.slice(0, STAGES.indexOf(job.options.targets) + 1);
}
