// What names an environment to join: typed, or in a link that may come from anywhere. Names alone are taken; they are shown
// to the user before anything is done with them, and the agent checks them too. Pure, so that a table can test it.

export interface JoinTarget {
  namespace: string;
  environment: string;
  /** context is the user's own name for the cluster; cluster its address, which is only compared with the user's contexts'. */
  context?: string;
  cluster?: string;
}

/** label is a name of Kubernetes (RFC 1123). */
const label = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/;

/** parseTarget reads NAMESPACE/ENVIRONMENT as `fairlead env share` prints it, or the whole command, with its --context. */
export function parseTarget(text: string): JoinTarget | undefined {
  const m = /^(?:fairlead join\s+)?([^\s/]+)\/([^\s/]+)(?:\s+--context[ =](\S+))?$/.exec(text.trim());
  if (!m || !label.test(m[1]!) || !label.test(m[2]!)) return undefined;
  return { namespace: m[1]!, environment: m[2]!, ...(m[3] ? { context: m[3] } : {}) };
}

/** linkTarget reads vscode://fairlead.fairlead/join?cluster=...&environment=...&namespace=...; anything else is none. */
export function linkTarget(path: string, query: string): JoinTarget | undefined {
  if (path !== '/join') return undefined;
  const q = new URLSearchParams(query);
  if ([...q.keys()].sort().join() !== 'cluster,environment,namespace') return undefined;
  const [namespace, environment, cluster] = [q.get('namespace')!, q.get('environment')!, q.get('cluster')!];
  if (!label.test(namespace) || !label.test(environment) || !/^https?:\/\/[\w.:/[\]-]{1,300}$/.test(cluster)) return undefined;
  return { namespace, environment, cluster };
}
