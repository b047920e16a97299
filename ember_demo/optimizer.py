"""AdamW whose steps do not round away: float32 copies of the weights are trained, whatever the model is held in."""

import torch


class MasterAdamW:
    """Trains parameters of any floating type by way of float32 masters.

    groups: as for `torch.optim.AdamW`; each parameter must require its gradient.
    """

    def __init__(self, groups, **settings):
        self.pairs, masters = [], []
        for group in groups:
            copies = [p.detach().float() for p in group["params"]]  # of a float32 parameter, the very same storage
            self.pairs += zip(group["params"], copies)
            masters.append({**group, "params": copies})
        self.optimizer = torch.optim.AdamW(masters, **settings)

    def step(self):
        """One step along the gradients that the parameters hold, which are cleared."""
        for parameter, master in self.pairs:
            if parameter.grad is not None:
                master.grad, parameter.grad = parameter.grad.float(), None
        self.optimizer.step()
        self.optimizer.zero_grad()
        with torch.no_grad():
            for parameter, master in self.pairs:
                if parameter.dtype != master.dtype:
                    parameter.copy_(master)
