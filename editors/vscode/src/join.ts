// What names an environment to join: typed, or in a link that may come from anywhere. Names alone are taken; they are shown
// to the user before anything is done with them, and the agent checks them too. Pure, so that a table can test it.

export interface JoinTarget {
  namespace: string;
  environment: string;
}

/** label is a name of Kubernetes (RFC 1123). */
const label = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/;

/** parseTarget reads NAMESPACE/ENVIRONMENT as `fairlead env share` prints it, with or without the command before it. */
export function parseTarget(text: string): JoinTarget | undefined {
  const parts = text.trim().replace(/^fairlead join\s+/, '').split('/');
  const [namespace, environment] = parts;
  if (parts.length !== 2 || !label.test(namespace!) || !label.test(environment!)) return undefined;
  return { namespace: namespace!, environment: environment! };
}

/** linkTarget reads vscode://fairlead.fairlead/join?namespace=...&environment=...; anything else is none. */
export function linkTarget(path: string, query: string): JoinTarget | undefined {
  if (path !== '/join') return undefined;
  const q = new URLSearchParams(query);
  if ([...q.keys()].sort().join() !== 'environment,namespace') return undefined;
  return parseTarget(`${q.get('namespace')}/${q.get('environment')}`);
}
