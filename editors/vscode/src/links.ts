// From what a log line calls a file to the file: a stack frame's absolute path, log.Lshortfile's bare name, a path from
// the module's root, or one of a build with -trimpath. Only files that are there, in the workspace, the service's module,
// the module cache or GOROOT are opened, whatever a log line says. Knows nothing of VS Code.

import { promises as fs } from 'node:fs';
import * as path from 'node:path';

export interface Roots {
  /** Folders of the workspace and of the service, absolute. */
  folders: string[];
  /** The main package's folder, absolute. */
  package?: string;
  module?: string;
  goroot?: string;
  modcache?: string;
}

/** candidates are the places where a file of that name may be, the likeliest first. */
export function candidates(file: string, roots: Roots, modulePath: string): string[] {
  if (file.includes('\0')) return [];
  if (path.isAbsolute(file)) return [path.normalize(file)];
  const out: string[] = [];
  const clean = path.normalize(file);
  if (roots.module && modulePath && file.startsWith(modulePath + '/')) out.push(path.join(roots.module, file.slice(modulePath.length + 1)));
  for (const dir of [roots.package, roots.module, ...roots.folders]) if (dir) out.push(path.join(dir, clean));
  if (roots.modcache && /^[^/\\]+\.[^/\\]+\/.*@v/.test(file)) out.push(path.join(roots.modcache, file.replace(/[A-Z]/g, (c) => '!' + c.toLowerCase())));
  if (roots.goroot) out.push(path.join(roots.goroot, 'src', clean));
  return [...new Set(out)];
}

/** find returns the first candidate that may be opened, by its real path's place and its own name. */
export async function find(file: string, roots: Roots): Promise<string | undefined> {
  const allowed: string[] = [];
  for (const dir of [...roots.folders, roots.package, roots.module, roots.modcache, roots.goroot && path.join(roots.goroot, 'src')]) {
    if (!dir) continue;
    try {
      allowed.push(await fs.realpath(dir));
    } catch {
      // a folder that is not there allows nothing
    }
  }
  for (const c of candidates(file, roots, await modulePath(roots.module))) {
    try {
      const real = await fs.realpath(c);
      if (!(await fs.stat(real)).isFile()) continue;
      if (allowed.some((dir) => within(real, dir))) return c;
    } catch {
      // not there
    }
  }
  return undefined;
}

function within(file: string, dir: string): boolean {
  const rel = path.relative(dir, file);
  return rel !== '' && !path.isAbsolute(rel) && rel.split(path.sep)[0] !== '..';
}

async function modulePath(dir: string | undefined): Promise<string> {
  if (!dir) return '';
  try {
    return /^module\s+"?([^\s"]+)/m.exec(await fs.readFile(path.join(dir, 'go.mod'), 'utf8'))?.[1] ?? '';
  } catch {
    return '';
  }
}
