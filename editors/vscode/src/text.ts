// How a service's state reads: in the status bar, the tree and the quick pick. Pure, so that a table can test it.

import { busy, type Dependency, type Problem, type Review, type ReviewChange, type ReviewPlan, type Service, type Services } from './protocol';

/** Client is what the extension itself knows: whether the language server's process is there. */
export type Client =
  | { state: 'untrusted' | 'starting' | 'running' | 'stopped' }
  | { state: 'crashed'; reason: string; retryMs?: number };

export type Tone = 'plain' | 'error' | 'warning';

export interface Status {
  text: string;
  tone: Tone;
  /** Said by screen readers, without icon names. */
  label: string;
}

const longest = 60;

/** short cuts a sentence for a place that is one line high. */
export function short(s: string, n = longest): string {
  const line = s.replace(/\s+/g, ' ').trim();
  const chars = [...line];
  return chars.length <= n ? line : chars.slice(0, n - 1).join('').trimEnd() + '…';
}

export function duration(ms: number): string {
  if (ms < 10_000) return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
  const s = Math.round(ms / 1000);
  return s < 60 ? `${s} s` : `${Math.floor(s / 60)} min ${s % 60 ? `${s % 60} s` : ''}`.trim();
}

export const shortDigest = (d: string): string => d.replace(/^sha256:/, '').slice(0, 12);

const isError = (p: Problem): boolean => !p.severity || p.severity === 'error';

export function place(p: Problem): string {
  if (!p.file) return '';
  const base = p.file.replace(/^.*[\\/]/, '');
  return base + (p.line ? `:${p.line}${p.column ? `:${p.column}` : ''}` : '');
}

/** why is the reason that a service is in its phase, in a few words. */
export function why(s: Service): string {
  if (s.detail) return s.detail;
  const p = s.problems.find(isError) ?? s.problems[0];
  if (p) return (place(p) ? place(p) + ': ' : '') + p.message;
  if (s.phase === 'down' && s.exit_code !== undefined) return `exit code ${s.exit_code}`;
  return '';
}

const withWhy = (word: string, s: Service): string => (why(s) ? `${word}: ${why(s)}` : word);

/** dependencyText is how an environment has a dependency, and how that is. */
export function dependencyText(d: Dependency): string {
  const health = d.health === 'ready' || d.health === '' ? d.health : d.detail ? `${d.health}: ${short(d.detail, 80)}` : d.health;
  return [d.mode, d.engine, health].filter(Boolean).join(' · ');
}

/** otherMode is what a dependency can be switched to, as long as the environment runs; empty: it cannot. */
export function otherMode(s: Service, d: Dependency): '' | 'shared' | 'fresh' {
  if (s.provider !== 'kubernetes' || s.joined || s.phase === 'stopping' || s.phase === 'ended') return '';
  if (d.mode === 'fresh') return 'shared';
  return d.mode === 'shared' && d.workload ? 'fresh' : '';
}

/** switchWarning is what a switch of a dependency costs that cannot be brought back; empty: nothing. */
export function switchWarning(s: Service, d: Dependency): string {
  if (d.mode === 'fresh') return `The environment's copy of ${d.name} is removed, with its data.`;
  const others = s.dependencies.filter((x) => x.mode === 'fresh').map((x) => x.name);
  return others.length > 0 ? `The pods of the other copies (${others.join(', ')}) are replaced too: what they keep outside of volumes is lost.` : '';
}

/** keptText is until when an environment stays without anybody. */
export function keptText(s: Service, now = new Date()): string {
  if (s.keep) return 'kept';
  const until = new Date(s.keep_until ?? NaN);
  if (Number.isNaN(until.getTime()) || until <= now) return '';
  const day = until.toDateString() === now.toDateString() ? '' : `${until.toLocaleDateString(undefined, { weekday: 'short', month: 'short', day: 'numeric' })} `;
  return `kept until ${day}${until.toLocaleTimeString(undefined, { hour: '2-digit', minute: '2-digit' })}`;
}

/** reviewText names a review as a row of its service does. */
export const reviewText = (r: Review): string => (r.draft ? 'Draft review' : 'Review') + (r.number > 0 ? ` #${r.number}` : '');

/** reviewTitle says above every step of a draft review what it is a step of. A new branch is named after the message, and not as planned where another was typed. */
export function reviewTitle(p: ReviewPlan, typed?: string): string {
  const what = p.existing ? `Update Review${p.existing.number > 0 ? ` #${p.existing.number}` : ''}` : 'Create Draft Review';
  const otherwise = typed !== undefined && p.title === p.message && typed.trim().split('\n')[0] !== p.message;
  const branch = !p.new ? p.branch : otherwise ? 'a new branch' : `new branch ${p.branch}`;
  return `${what}: ${branch} for ${p.base} on ${p.forge}`;
}

export const changeText = (c: ReviewChange): string => (c.staged ? `${c.kind}, staged` : c.kind);

export interface ReviewRow {
  label: string;
  description: string;
  detail: string;
  login?: string;
  team?: string;
}

/** reviewRows are those who can be asked, first those who must be. Nobody is ticked. */
export function reviewRows(p: ReviewPlan): ReviewRow[] {
  const people = p.reviewers.filter((r) => r.login !== '').map((r) => ({
    must: r.required,
    row: {
      label: `$(${r.required ? 'shield' : 'account'}) ${r.name}`, detail: r.why, login: r.login,
      description: [r.login, r.required ? 'must be asked' : '', r.asked ? 'asked already' : ''].filter(Boolean).join(' · '),
    },
  }));
  const teams = p.teams.map((t) => ({ label: `$(organization) ${t.name}`, description: 'team · must be asked', detail: t.why, team: t.name }));
  return [...people.filter((x) => x.must).map((x) => x.row), ...teams, ...people.filter((x) => !x.must).map((x) => x.row)];
}

/** reviewNotes are what a plan says beside what can be picked; empty: nothing. */
export function reviewNotes(p: ReviewPlan): string {
  const others = p.reviewers.filter((r) => r.login === '').map((r) => `${r.name} (${r.why})`);
  return [
    ...p.notes,
    p.behind > 0 ? `${p.base} has ${p.behind === 1 ? '1 commit' : `${p.behind} commits`} that ${p.new ? 'this work tree' : p.branch} lacks` : '',
    others.length > 0 ? `could review too, but not by a login that is known here: ${others.join(', ')}` : '',
  ].filter(Boolean).join('. ');
}

/** phaseText is the phase in words, with its reason or its time. */
export function phaseText(s: Service): string {
  switch (s.phase) {
    case 'opening':
    case 'stopping':
    case 'starting':
      return s.detail ? `${s.phase}: ${s.detail}` : s.phase;
    case 'building':
    case 'shipping':
      return s.phase;
    case 'waiting':
      return s.debug?.on_save === 'never' ? 'built, waits until you restart or swap it in' : 'built, waits: stopped in the debugger';
    case 'live':
      if (s.debug?.stopped) return 'stopped in the debugger';
      return s.ms ? `live in ${duration(s.ms)}` : 'live';
    case 'failed':
      return withWhy('failed', s);
    case 'down':
      return withWhy('down', s);
    case 'lost':
      return withWhy('disconnected', s);
    case 'waking':
      return withWhy('waking the environment', s);
    case 'ended':
      return withWhy('ended', s);
  }
}

export function icon(s: Service): string {
  if (busy(s.phase)) return 'loading~spin';
  switch (s.phase) {
    case 'waiting':
      return 'debug-pause';
    case 'live':
      return s.debug?.stopped ? 'debug-pause' : 'pass-filled';
    case 'failed':
      return 'error';
    case 'lost':
      return 'debug-disconnect';
    case 'down':
      return 'debug-stop';
    default:
      return 'circle-slash';
  }
}

export const tone = (s: Service): Tone => (s.phase === 'failed' || s.phase === 'down' ? 'error' : s.phase === 'lost' || s.phase === 'ended' || s.phase === 'waiting' ? 'warning' : 'plain');

const urgency: Record<Service['phase'], number> = {
  failed: 0, down: 1, lost: 2, waiting: 3, opening: 4, building: 4, shipping: 4, starting: 4, waking: 4, stopping: 5, live: 6, ended: 7,
};

/** inside says whether a file is in a folder, by path alone. */
export function inside(file: string, dir: string | undefined): boolean {
  if (!dir) return false;
  const norm = (p: string): string => p.replace(/\\/g, '/').replace(/\/+$/, '');
  return norm(file) === norm(dir) || norm(file).startsWith(norm(dir) + '/');
}

/** serviceOf is the service that a file belongs to: the deepest main package, module or folder that it is in. */
export function serviceOf(services: Service[], file: string | undefined): Service | undefined {
  if (!file) return undefined;
  for (const dir of [(s: Service) => s.package, (s: Service) => s.module, (s: Service) => s.dir]) {
    const in_ = services.filter((s) => inside(file, dir(s)));
    if (in_.length > 0) return in_.reduce((a, b) => ((dir(b)?.length ?? 0) > (dir(a)?.length ?? 0) ? b : a));
  }
  return undefined;
}

/** shown is the service that the status bar speaks of: the active file's, else the one that needs a look most. */
export function shown(services: Service[], file: string | undefined): Service | undefined {
  return serviceOf(services, file) ?? [...services].sort((a, b) => urgency[a.phase] - urgency[b.phase])[0];
}

export function status(client: Client, all: Services, file: string | undefined): Status {
  const make = (icon: string, label: string, tone: Tone = 'plain'): Status => ({ text: `$(${icon}) ${label}`, tone, label });
  switch (client.state) {
    case 'untrusted':
      return make('shield', 'Fairlead: restricted');
    case 'starting':
      return make('loading~spin', 'Fairlead: starting agent');
    case 'stopped':
      return make('circle-slash', 'Fairlead: stopped', 'warning');
    case 'crashed':
      return make('error', short(`Fairlead: ${client.reason}`), 'error');
  }
  if (!all.agent.connected) {
    const p = all.agent.problem;
    return p ? make('debug-disconnect', short(`Fairlead: no agent: ${p.message}`), 'warning') : make('loading~spin', 'Fairlead: starting agent');
  }
  const s = shown(all.services, file);
  if (!s) return make('run', 'Fairlead: run');
  const more = all.services.length > 1 ? ` (+${all.services.length - 1})` : '';
  return make(icon(s), short(`${s.service}: ${phaseText(s)}`) + more, tone(s));
}

/** debugText says how a debug session stands, in a few words; empty without one. */
export function debugText(s: Service): string {
  const d = s.debug;
  if (!d) return '';
  if (d.waiting) return `stopped; generation ${d.waiting} waits${d.on_save === 'never' ? ' until you restart or stop' : ' until you continue'}`;
  return d.stopped ? 'stopped' : d.ready ? 'runs' : 'is being prepared';
}

/** where says where an environment is. */
export function where(s: Service): { label: string; description: string } {
  if (s.provider === 'local') return { label: 'On this machine', description: '' };
  const label = s.provider === 'kubernetes' ? 'Kubernetes' : s.provider || 'Environment';
  return { label, description: [s.context, s.namespace, s.pod].filter(Boolean).join(' / ') };
}

/** escape makes text safe inside markdown of a tooltip: nothing that an agent or a compiler says becomes markup. */
export const escape = (s: string): string => s.replace(/[\\`*_{}[\]()#+\-.!|<>~&$]/g, '\\$&').replace(/\r?\n/g, '  \n');

/** details is a service as markdown, for tooltips. Links are only to loopback addresses that the agent gave. */
export function details(s: Service): string {
  const rows: string[] = [];
  const row = (k: string, v: string | undefined): void => {
    if (v) rows.push(`| ${k} | ${v} |`);
  };
  const w = where(s);
  row('State', escape(phaseText(s)));
  row('Environment', escape(s.name));
  row('Owner', escape(s.joined ? `${s.owner}; followed from here` : ''));
  row('Where', escape(w.label + (w.description ? `, ${w.description}` : '')));
  row('Made after', escape(s.template ?? ''));
  if (s.generation > 0) row('Generation', `${s.generation}${s.digest ? ` \`${shortDigest(s.digest)}\`` : ''}`);
  if (s.working && s.working !== s.generation) row('Next', `${s.working}`);
  row('Process', escape([s.process, s.pid ? `pid ${s.pid}` : '', s.exit_code === undefined ? '' : `exit code ${s.exit_code}`].filter(Boolean).join(', ')));
  row('Debugger', escape(s.debug ? `${debugText(s)} (${s.debug.by})` : ''));
  if (s.url && isWeb(s.url)) row('Address', `[${escape(s.url)}](${s.url})`);
  row('Used by', escape(s.clients.join(', ')));
  const out = [`**${escape(s.service)}**`, '', '| | |', '|---|---|', ...rows];
  for (const p of s.problems.slice(0, 5)) {
    out.push('', `$(${isError(p) ? 'error' : 'warning'}) ${escape((place(p) ? place(p) + ': ' : '') + p.message)}`);
    if (p.hint) out.push('', `$(lightbulb) ${escape(p.hint)}`);
  }
  if (s.problems.length > 5) out.push('', `and ${s.problems.length - 5} more`);
  return out.join('\n');
}

/** isWeb says whether a link may be opened: nothing but plain web addresses is. */
export function isWeb(url: string): boolean {
  try {
    const u = new URL(url);
    return u.protocol === 'http:' || u.protocol === 'https:';
  } catch {
    return false;
  }
}
