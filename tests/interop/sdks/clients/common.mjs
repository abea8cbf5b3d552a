// What the Node clients share: where Attaché is, who the end users are, and each of them at once.

export const ATTACHE = process.env.ATTACHE;
export const GONE = process.env.GONE;
export const UPSTREAM = process.env.UPSTREAM;

export async function forEachUser(test) {
  await Promise.all(process.env.END_USERS.split(' ').map((user) => test(user, user.split('@')[0])));
  console.log('ok');
}
