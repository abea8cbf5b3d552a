// @octokit/rest. Its pages are told by `Link` with absolute URLs: one hook sends them to Attaché too.

import { Octokit } from '@octokit/rest';
import { ATTACHE, forEachUser, GONE } from './common.mjs';
import { useGitHub } from './octokit-calls.mjs';

const log = { debug() {}, info() {}, warn() {}, error() {} };

// docs: begin
function octokitOf(endUser) {
  const octokit = new Octokit({ baseUrl: `${ATTACHE}/github`, log });
  octokit.hook.before('request', (options) => {
    options.url = options.url.replace('https://api.github.com/', '/');
    options.headers['x-end-user'] = endUser;
  });
  return octokit;
}
// docs: end

await forEachUser((user, login) => useGitHub(octokitOf(user), octokitOf(GONE), login));
