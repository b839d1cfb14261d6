"""Compress a PyTorch module: one bit a weight in each layer, plus 1% corrections over the net.

The C steps are lcref's, and run on PyTorch's tensors where they live; the L step is a loop of
PyTorch's own optimizer on the loss plus the penalty. Run `python examples/pytorch_module.py`.
"""

import torch

import lcref
import lcref.data

torch.manual_seed(0)
digits = lcref.data.load("digits")
x, y = torch.tensor(digits.x_train), torch.tensor(digits.y_train)
test_x, test_y = torch.tensor(digits.x_test), torch.tensor(digits.y_test)
net = torch.nn.Sequential(torch.nn.Linear(64, 300), torch.nn.Tanh(),
                          torch.nn.Linear(300, 100), torch.nn.Tanh(), torch.nn.Linear(100, 10))


def train(epochs, rate, targets, mu):
    """Minimise L(w) + μ/2 ‖w − target‖² by Nesterov's SGD; return the weights."""
    optimizer = torch.optim.SGD(net.parameters(), rate, momentum=0.9, nesterov=True)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(64):
            loss = torch.nn.functional.cross_entropy(net(x[batch]), y[batch])
            for name, w in net.named_parameters():
                if name in targets:
                    loss = loss + mu / 2 * torch.sum((w - targets[name]) ** 2)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return {name: w.detach().clone() for name, w in net.named_parameters()}


def l_step(params, targets, mu, step, state):
    net.load_state_dict(params)
    return train(5, min(0.1 * 0.98**step, 1 / mu), targets, mu), state


def error(params):
    """Test error of the net with these weights, in percent."""
    net.load_state_dict(params)
    with torch.no_grad():
        return 100 * float((net(test_x).argmax(1) != test_y).float().mean())


reference = train(30, 0.1, targets={}, mu=0)
names = ["0.weight", "2.weight", "4.weight"]
tasks = [lcref.Task(names, lcref.Each(lcref.Quantize(k=2)) + lcref.Prune(keep=0.01))]
result = lcref.compress(reference, tasks, l_step, lcref.Schedule(mu0=1e-3, a=1.4, steps=20))
print(f"reference          {error(reference):5.2f}% test error")
print(f"direct compression {error(result.direct):5.2f}% test error")
print(f"LC                 {error(result.params):5.2f}% test error")
print("ratio", {name: round(ratio, 2) for name, ratio in result.ratio.items()})
