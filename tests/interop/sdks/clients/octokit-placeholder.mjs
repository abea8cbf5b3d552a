// @octokit/rest on a listener of `listen.origins`, with the end user's name where it wants its token.

import { Octokit } from '@octokit/rest';
import { ATTACHE, forEachUser, GONE } from './common.mjs';
import { useGitHub } from './octokit-calls.mjs';

const log = { debug() {}, info() {}, warn() {}, error() {} };

// docs: begin
function octokitOf(endUser) {
  const octokit = new Octokit({ baseUrl: ATTACHE, auth: endUser, log });
  octokit.hook.before('request', (options) => {
    options.url = options.url.replace('https://api.github.com/', '/');
  });
  return octokit;
}
// docs: end

await forEachUser((user, login) => useGitHub(octokitOf(user), octokitOf(GONE), login));
