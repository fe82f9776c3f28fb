// A function in Node on a bootstrap of its own: the Runtime API is a GET and a POST.

const api = `http://${process.env.AWS_LAMBDA_RUNTIME_API}/2018-06-01/runtime/invocation`;

const work = ({ n, text }) => ({ n, square: n * n, upper: text.toUpperCase() });

for (;;) {
  const next = await fetch(`${api}/next`);
  const id = next.headers.get("lambda-runtime-aws-request-id");
  try {
    const answer = work(await next.json());
    await fetch(`${api}/${id}/response`, { method: "POST", body: JSON.stringify(answer) });
  } catch (error) {
    const said = { errorType: error.name, errorMessage: error.message, trace: error.stack.split("\n") };
    await fetch(`${api}/${id}/error`, { method: "POST", body: JSON.stringify(said) });
  }
}
