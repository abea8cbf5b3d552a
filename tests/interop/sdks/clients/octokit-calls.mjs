// What both Octokits do: the one that sends a header, and the one that has only its token.

import assert from 'node:assert/strict';

export async function useGitHub(octokit, octokitOfGone, login) {
  const repos = await octokit.paginate(octokit.rest.repos.listForAuthenticatedUser, { per_page: 2 });
  assert.deepEqual(repos.map((repo) => repo.name), [1, 2, 3].flatMap((page) => [`${login}-${page}-0`, `${login}-${page}-1`]));

  const photos = { owner: login, repo: 'photos' };
  const issue = await octokit.rest.issues.create({ ...photos, title: 'Fish & chips' });
  assert.deepEqual([issue.status, issue.data.title, issue.data.user.login], [201, 'Fish & chips', login]);
  const raw = await octokit.rest.repos.getContent({ ...photos, path: 'a.bin', mediaType: { format: 'raw' } });
  assert.deepEqual([...new Uint8Array(raw.data)], [...Array(256).keys()]);

  await assert.rejects(octokit.rest.repos.get({ owner: login, repo: 'nothing' }), (error) => error.name === 'HttpError' && error.status === 404 && /Not Found/.test(error.message));
  await assert.rejects(octokit.rest.repos.get({ owner: login, repo: 'busy' }), (error) => error.status === 429 && error.response.headers['retry-after'] === '60');
  await assert.rejects(octokitOfGone.rest.users.getAuthenticated(), (error) => error.status === 401 && /Bad credentials/.test(error.message));
}
