// What the agent says, as TypeScript sees it: the shapes of api/agent.go, api/event.go and api/problem.go, and the few
// messages of ours beside the language server protocol. Everything that comes in is made whole here (lists that are
// missing are empty), so that no drawing code has to ask; members that we do not know are left alone.

export type Phase = 'opening' | 'building' | 'shipping' | 'waiting' | 'starting' | 'live' | 'failed' | 'down' | 'lost' | 'waking' | 'stopping' | 'ended';

export interface Problem {
  code: string;
  severity?: string; // empty means error
  message: string;
  hint?: string;
  file?: string;
  line?: number; // from 1
  column?: number; // in bytes, from 1
  /** The page on which access is requested, and what was refused: both of a call that is not granted. */
  link?: string;
  call?: Call;
}

/** Call is what a service calls of another. */
export interface Call {
  callee: string;
  method: string;
}

export interface Forward {
  port: number;
  local: number;
  url: string;
  main?: boolean;
}

/** Debug is a debug session of a service, whoever's. */
export interface Debug {
  by: string;
  ready: boolean; // the process that runs can be debugged
  stopped: boolean; // it stands in the debugger
  on_save: string; // 'continue', 'now' or 'never'
  waiting: number; // the generation that is built and waits for the process to go on; 0: none
}

/** Dependency is something that a service calls, and how its environment has it. */
export interface Dependency {
  name: string;
  mode: string; // 'shared', 'fresh', 'external' or 'off'
  engine?: string;
  workload?: string;
  why: string[];
  health: string; // 'ready', 'starting', 'failed'; '' is unknown
  detail?: string;
}

/** Review is the draft review that was made last of a change in the service's repository. */
export interface Review {
  number: number; // 0: its forge gave none
  url: string;
  title: string;
  draft: boolean;
}

export interface Service {
  name: string;
  service: string;
  provider: string;
  context?: string;
  namespace?: string;
  pod?: string;
  template?: string;
  resumed?: boolean;
  dir: string;
  package?: string;
  module?: string;
  phase: Phase;
  detail?: string;
  working?: number;
  since?: string;
  generation: number;
  digest?: string;
  process?: string;
  pid?: number;
  exit_code?: number;
  url?: string;
  ports: Forward[];
  ms?: number;
  debug?: Debug;
  core?: string; // the core file that the last process left, in the pod
  review?: Review;
  joined?: boolean; // it is owner's, and only followed here
  owner?: string;
  dependencies: Dependency[];
  clients: string[];
  keep?: boolean;
  keep_until?: string; // it stays until then, used or not
  problems: Problem[];
}

export interface AgentState {
  connected: boolean;
  version?: string;
  problem?: Problem;
}

/** Services is the notification fairlead/services: all that there is to draw, whole, at every change. */
export interface Services {
  agent: AgentState;
  services: Service[];
}

export interface Access {
  url: string;
  token: string;
}

/** Options are initializationOptions and, later, the section of workspace/didChangeConfiguration. */
export interface Options {
  openBrowser: string;
  on: string;
  codeLens: boolean;
  trusted: boolean;
  beside: boolean;
}

/** ReviewPlan is what a draft review would be: api.ReviewPlan, as far as it is drawn. */
export interface ReviewPlan {
  dir: string;
  state: string; // of what was looked at
  branch: string;
  new: boolean; // the branch is made
  base: string;
  forge: string;
  behind: number;
  commits: number;
  changes: ReviewChange[];
  message: string;
  title: string;
  reviewers: ReviewPerson[];
  teams: { name: string; why: string }[];
  existing?: Review;
  notes: string[];
}

export interface ReviewChange {
  path: string;
  kind: string;
  staged: boolean;
  picked: boolean;
}

export interface ReviewPerson {
  name: string;
  login: string; // empty: the forge is not known to know them
  why: string;
  required: boolean;
  asked: boolean;
}

export const servicesMethod = 'fairlead/services';
export const accessMethod = 'fairlead/access';

type Obj = Record<string, unknown>;
const isObj = (v: unknown): v is Obj => typeof v === 'object' && v !== null && !Array.isArray(v);
const str = (v: unknown): string => (typeof v === 'string' ? v : '');
const num = (v: unknown): number => (typeof v === 'number' && Number.isFinite(v) ? v : 0);
const list = <T>(v: unknown, each: (o: Obj) => T | undefined): T[] =>
  Array.isArray(v) ? v.flatMap((o) => (isObj(o) ? (each(o) ?? []) : [])) : [];

const phases = new Set<string>(['opening', 'building', 'shipping', 'waiting', 'starting', 'live', 'failed', 'down', 'lost', 'waking', 'stopping', 'ended']);

export function toProblem(v: unknown): Problem | undefined {
  if (typeof v === 'string') return v === '' ? undefined : { code: '', message: v };
  if (!isObj(v) || str(v.message) === '') return undefined;
  const p = { ...v, code: str(v.code), message: str(v.message) } as Problem;
  delete p.call;
  const call = toCall(v.call);
  if (call) p.call = call;
  if (str(v.link) === '') delete p.link;
  return p;
}

export function toCall(v: unknown): Call | undefined {
  return isObj(v) && str(v.callee) !== '' && str(v.method) !== '' ? { callee: str(v.callee), method: str(v.method) } : undefined;
}

/** refusedCalls are the calls of a service that stand refused, to which access can be requested. */
export const refusedCalls = (s: Service): Call[] => s.problems.flatMap((p) => (p.link && p.call ? [p.call] : []));

function toDependency(o: Obj): Dependency | undefined {
  if (str(o.name) === '') return undefined;
  const why = Array.isArray(o.why) ? o.why.filter((w): w is string => typeof w === 'string') : [];
  return { name: str(o.name), mode: str(o.mode), engine: str(o.engine), workload: str(o.workload), why, health: str(o.health), detail: str(o.detail) };
}

function toReview(v: unknown): Review | undefined {
  return isObj(v) && str(v.url) !== '' ? { number: num(v.number), url: str(v.url), title: str(v.title), draft: v.draft === true } : undefined;
}

export function toReviewPlan(v: unknown): ReviewPlan {
  if (!isObj(v) || str(v.dir) === '' || str(v.state) === '') throw new Error('the agent did not say what the review would be');
  const plan: ReviewPlan = {
    dir: str(v.dir), state: str(v.state), branch: str(v.branch), new: v.new === true, base: str(v.base), forge: str(v.forge), behind: num(v.behind),
    commits: Array.isArray(v.commits) ? v.commits.length : 0, message: str(v.message), title: str(v.title),
    changes: list(v.changes, (c) => (str(c.path) === '' ? undefined : { path: str(c.path), kind: str(c.kind), staged: c.staged === true, picked: c.picked === true })),
    reviewers: list(v.reviewers, (p) => ({ name: str(p.name) || str(p.login) || str(p.email), login: str(p.login), why: str(p.why), required: p.required === true, asked: p.asked === true })),
    teams: list(v.teams, (t) => (str(t.name) === '' ? undefined : { name: str(t.name), why: str(t.why) })),
    notes: Array.isArray(v.notes) ? v.notes.filter((n): n is string => typeof n === 'string' && n !== '') : [],
  };
  const existing = toReview(v.existing);
  if (existing) plan.existing = existing;
  return plan;
}

function toService(o: Obj): Service | undefined {
  if (str(o.name) === '') return undefined;
  const s: Service = {
    ...(o as unknown as Service),
    name: str(o.name),
    service: str(o.service) || str(o.name),
    provider: str(o.provider),
    dir: str(o.dir),
    // A phase of a newer agent is shown as work under way: its detail says the rest.
    phase: (phases.has(str(o.phase)) ? o.phase : 'opening') as Phase,
    generation: num(o.generation),
    ports: list(o.ports, (p) => ({ port: num(p.port), local: num(p.local), url: str(p.url), main: p.main === true })),
    dependencies: list(o.dependencies, toDependency),
    clients: Array.isArray(o.clients) ? o.clients.filter((c): c is string => typeof c === 'string') : [],
    problems: list(o.problems, toProblem),
  };
  delete s.debug;
  if (isObj(o.debug)) {
    const d = o.debug;
    s.debug = { by: str(d.by), ready: d.ready === true, stopped: d.stopped === true, on_save: str(d.on_save), waiting: num(d.waiting) };
  }
  delete s.review;
  const review = toReview(o.review);
  if (review) s.review = review;
  if (o.joined !== true) delete s.joined;
  s.owner = str(o.owner);
  if (str(o.core) === '') delete s.core;
  if (str(o.keep_until) === '') delete s.keep_until;
  return s;
}

export function toServices(v: unknown): Services {
  const o = isObj(v) ? v : {};
  const a = isObj(o.agent) ? o.agent : {};
  const agent: AgentState = { connected: a.connected === true };
  if (str(a.version)) agent.version = str(a.version);
  const problem = toProblem(a.problem);
  if (problem) agent.problem = problem;
  const services = list(o.services, toService).filter((s) => s.phase !== 'ended' || s.problems.length > 0);
  services.sort((x, y) => (x.service < y.service ? -1 : x.service > y.service ? 1 : x.name < y.name ? -1 : 1));
  return { agent, services };
}

export function toAccess(v: unknown): Access {
  if (!isObj(v) || str(v.url) === '') throw new Error('the agent did not say where its journal is');
  return { url: str(v.url), token: str(v.token) };
}

/** busy says that something is under way for a service, which a spinner shows. */
export const busy = (p: Phase): boolean => p === 'opening' || p === 'building' || p === 'shipping' || p === 'starting' || p === 'waking' || p === 'stopping';
