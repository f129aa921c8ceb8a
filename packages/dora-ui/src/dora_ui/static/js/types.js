/**
 * Shapes of what the server sends (see `rows.py` and `streams.py`); an unknown value is absent.
 *
 * @typedef {{address: string, release?: string, readOnly: boolean, problem?: string, local?: boolean}} Source
 * @typedef {{status: "connected"|"lost"|"ended", address: string, release: string,
 *   labels: Record<string, string>, nodes: number, restarts: number, healthKills: number,
 *   inputTimeouts: number, seenAt?: number, offsetMs?: number, runners?: string[],
 *   plainLinks?: boolean, operation?: {command: string, operator: string, since?: number}, cpus?: number, cpu?: number, memory?: number, memoryTotal?: number,
 *   disk?: number, diskTotal?: number}} Machine
 * @typedef {{machine: string, peer: string, state: string, reason?: string, endpoint?: string,
 *   rttUs?: number, offsetUs?: number}} Link
 * @typedef {{cause: string, at: number, node?: string, machine?: string}} Restart
 * @typedef {{name?: string, status: string, reason?: string, nodes: number, machines: string[],
 *   cpu: number, memory: number, restarts: number, recoveries: number, lastRestart?: Restart,
 *   lastRecovery?: Restart, endedAt?: number, states: Record<string, number>, rate?: number,
 *   dropRate?: number}} Dataflow
 * @typedef {{status: string, machine: string, pid?: number, cpu?: number, memory?: number,
 *   read?: number, written?: number, restarts: number, lastRestart?: string, lastRestartAt?: number, queued: number, blockedOn?: string,
 *   brokenInputs?: string[], error?: string, held?: string}} NodeRow
 * @typedef {{source: string, target: string, policy: string, sourceMachine: string,
 *   targetMachine: string, sent: number, received: number, dropped: number, unmatched?: number, wire?: number, ratio?: number, queued: number,
 *   blocked?: boolean, rate?: number, bytes?: number, dropRate?: number, p50Us?: number,
 *   p99Us?: number}} EdgeRow
 * @typedef {{source: Source, machines: Record<string, Machine>, links: Record<string, Link>,
 *   dataflows: Record<string, Dataflow>, nodes: Record<string, Record<string, NodeRow>>,
 *   edges: Record<string, Record<string, EdgeRow>>, problems: string[]}} State
 *
 * The desired state of the fleet, as the REST API answers it; an unknown value is null.
 * @typedef {{name: string, machine: string | null, desired: number | null, observed: number | null, state: string,
 *   detail: string, held: string[]}} FleetCopy
 * @typedef {{generation: number, by: string, at: number, outcome: string, paused: string | null, settled: boolean,
 *   batch: number, batches: number, waits_for: string, copies: FleetCopy[]}} FleetReport
 * @typedef {{generation: number, action: string, by: string, at: number, changes: string[], outcome: string}} FleetEntry
 *
 * @typedef {{id: string, source: string, policy: string, size: number, type?: string, timeout?: number}} GraphInput
 * @typedef {{id: string, type?: string}} GraphOutput
 * @typedef {{id: string, name?: string, description?: string, machine?: string, kind: string,
 *   path?: string, restart: string, inputs: GraphInput[], outputs: GraphOutput[]}} GraphNode
 * @typedef {{uuid: string, inspectable: boolean, nodes: GraphNode[]}} Graph
 *
 * @typedef {{ts: string, level: string, node?: string, stream: string, msg: string,
 *   target?: string, file?: string, line?: number, fields?: Record<string, unknown>}} LogEntry
 *
 * @typedef {{media: string, data: string, width: number, height: number, encoding: string}} Picture
 * `width` and `height`: of the picture whose pixels are meant, if known; boxes have x, y, width, height and a label.
 * @typedef {{width?: number, height?: number, color?: string, boxes?: [number, number, number, number, string][],
 *   points?: [number, number][], mask?: Picture}} Overlay
 * @typedef {{timestamp: number, name: string, data: unknown, metadata: Record<string, unknown>,
 *   shortened?: Record<string, unknown>, picture?: Picture, overlay?: Overlay, unshown?: string}} Sample
 */
export {};
